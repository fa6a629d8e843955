/** The key `acme` of `ecluse.yaml`. */
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import * as z from 'zod';
import type { LimitPreset } from './rate-ledger.ts';

const CHALLENGES = ['http-01', 'tls-alpn-01', 'dns-01'] as const;
const CAS_MAX = 5;
const HOSTS_MAX = 1000;
const ORDERS_MAX = 50;
const DNS_PORT = 53;
const LETS_ENCRYPT_DOMAIN = '.letsencrypt.org';

const directory = z
  .string()
  .refine(isDirectoryUrl, {
    error: ({ input }) =>
      `${JSON.stringify(input).slice(0, 80)} is no URL of an ACME directory; write it like "https://acme-v02.api.letsencrypt.org/directory"`,
  })
  .describe('The URL of the directory of the CA.');

const caKeys = {
  eab: z
    .strictObject({
      keyId: z.string().min(1).max(1000).describe('What the CA calls the key.'),
      hmacKeyFile: z.string().min(1).describe('A file (mode 0600) with the HMAC key in base64url, as the CA gave it.'),
    })
    .optional()
    .describe('External account binding, where the CA wants one.'),
  profile: z.string().min(1).max(100).optional().describe('The profile of certificates, where the CA has several: "shortlived".'),
  limits: z
    .enum(['lets-encrypt', 'none'])
    .optional()
    .describe('Which published rate limits are kept. Default: "lets-encrypt" for Let\'s Encrypt, and "none" for others.'),
  trustedRoot: z
    .string()
    .min(1)
    .optional()
    .describe('A file (PEM) with the root of a private CA: what its own server is trusted by.'),
  challenges: z
    .array(z.enum(CHALLENGES))
    .min(1)
    .max(CHALLENGES.length)
    .optional()
    .describe(
      'How the CA may be shown that a host is ours, the first one first. Default: http-01, then tls-alpn-01, then dns-01 where acme.dns is set.',
    ),
};

/** An address without brackets, and its port. */
const SERVER = /^(?<host>[0-9a-fA-F.:]+?|\[[0-9a-fA-F:]+\])(?::(?<port>\d{1,5}))?$/;

const dns = z
  .strictObject({
    hook: z
      .string()
      .min(1)
      .optional()
      .describe('A program that is called as HOOK add|remove NAME VALUE, and puts the TXT record where resolvers see it.'),
    server: z
      .string()
      .regex(SERVER, { error: 'it is no address of a name server; write it like "192.0.2.1:53" or "[2001:db8::1]:53"' })
      .optional()
      .describe('Instead of a program: the address of the name server that takes dynamic updates (RFC 2136).'),
    keyFile: z
      .string()
      .min(1)
      .optional()
      .describe('With server: the file of the key that updates are signed with (TSIG), as tsig-keygen writes it.'),
    timeoutSeconds: z.int().min(1).max(600).prefault(60).describe('For one call of the program, or one update.'),
    settleSeconds: z.int().min(0).max(600).prefault(5).describe('How long the servers of the zone take to tell each other.'),
  })
  .refine(
    ({ hook, server, keyFile }) =>
      (hook === undefined) === (server !== undefined) && (server === undefined) === (keyFile === undefined),
    {
      error: 'it has either hook, or server and keyFile',
    },
  )
  .optional()
  .describe('How proofs get into the DNS (dns-01), which wildcards need.');

/** For the schema of the whole file. */
export const acmeKeys = {
  acme: z
    .strictObject({
      directory,
      email: z.email().optional().describe('Where the CA may write to.'),
      ...caKeys,
      cas: z
        .array(z.strictObject({ directory, ...caKeys }))
        .max(CAS_MAX)
        .prefault([])
        .describe('Further CAs, in the order in which they are asked where the ones before fail.'),
      auto: z
        .enum(['routes', 'off'])
        .prefault('routes')
        .describe('"routes": all public hosts of routes that have no certificate of your own. "off": those of acme.hosts only.'),
      hosts: z
        .array(
          z
            .string()
            .regex(/^(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,250}[a-z0-9_])?$/, { error: 'a host is a name in small letters' }),
        )
        .max(HOSTS_MAX)
        .prefault([])
        .describe('Hosts that get one in any case, also those whose names are not public.'),
      onDemand: z
        .strictObject({
          ask: z
            .url({ protocol: /^https?$/ })
            .optional()
            .describe(
              'A URL that is asked by GET with ?domain=NAME; the answer 200 allows the name. Without it routes of wildcards decide.',
            ),
        })
        .optional()
        .describe('Also hosts that clients call and a route of a wildcard, or of any host, is for. Absent: they get none.'),
      ordersMax: z.int().min(1).max(ORDERS_MAX).prefault(8).describe('Orders at a time.'),
      dns,
    })
    .optional()
    .describe('Certificates of CAs that speak ACME. Absent: none are asked for.'),
};

type Written = NonNullable<z.infer<typeof acmeKeys.acme>>;

export interface AcmeCaFileSettings {
  readonly directory: string;
  readonly email: string | undefined;
  readonly eab: { readonly keyId: string; readonly hmacKeyFile: string } | undefined;
  readonly profile: string | undefined;
  readonly limits: LimitPreset;
  readonly trustedRootFile: string | undefined;
  readonly challenges: readonly (typeof CHALLENGES)[number][];
}

interface DnsTimes {
  readonly timeoutMs: number;
  readonly settleMs: number;
}

export interface AcmeDnsHook extends DnsTimes {
  readonly kind: 'hook';
  readonly hook: string;
}

export interface AcmeDnsUpdate extends DnsTimes {
  readonly kind: 'update';
  readonly server: { readonly host: string; readonly port: number };
  readonly keyFile: string;
}

export type AcmeDnsSettings = AcmeDnsHook | AcmeDnsUpdate;

/** As the file says it, with absolute paths. */
export interface AcmeFileSettings {
  readonly cas: readonly AcmeCaFileSettings[];
  readonly auto: 'routes' | 'off';
  readonly hosts: readonly string[];
  readonly onDemand: { readonly ask: string | undefined } | undefined;
  readonly ordersMax: number;
  readonly dns: AcmeDnsSettings | undefined;
}

export function acmeSettingsOf(written: Written | undefined, baseFolder: string): AcmeFileSettings | undefined {
  if (written === undefined) return undefined;
  const { email, cas, auto, hosts, onDemand, ordersMax, dns: byDns, ...first } = written;
  const usual = byDns === undefined ? (['http-01', 'tls-alpn-01'] as const) : CHALLENGES;
  return {
    cas: [first, ...cas].map(({ eab, profile, limits, trustedRoot, challenges, directory: url }) => ({
      directory: url,
      email,
      eab: eab === undefined ? undefined : { keyId: eab.keyId, hmacKeyFile: resolve(baseFolder, eab.hmacKeyFile) },
      profile,
      limits: limits ?? usualLimitsOf(url),
      trustedRootFile: trustedRoot === undefined ? undefined : resolve(baseFolder, trustedRoot),
      challenges: challenges ?? usual,
    })),
    auto,
    hosts,
    onDemand: onDemand === undefined ? undefined : { ask: onDemand.ask },
    ordersMax,
    dns: byDns === undefined ? undefined : dnsOf(byDns, baseFolder),
  };
}

function dnsOf(written: NonNullable<Written['dns']>, baseFolder: string): AcmeDnsSettings {
  const times = { timeoutMs: written.timeoutSeconds * 1000, settleMs: written.settleSeconds * 1000 };
  const { hook, server = '', keyFile = '' } = written;
  if (hook !== undefined) return { kind: 'hook', hook: resolve(baseFolder, hook), ...times };
  const { host = '', port = String(DNS_PORT) } = SERVER.exec(server)?.groups ?? {};
  const address = { host: host.replaceAll(/[[\]]/g, ''), port: Number(port) };
  return { kind: 'update', server: address, keyFile: resolve(baseFolder, keyFile), ...times };
}

function usualLimitsOf(url: string): LimitPreset {
  return new URL(url).hostname.endsWith(LETS_ENCRYPT_DOMAIN) ? 'lets-encrypt' : 'none';
}

/** ACME is HTTPS (RFC 8555 §6.1). On this machine it may be a test server without it. */
function isDirectoryUrl(text: string): boolean {
  if (text.length > 2000 || !URL.canParse(text)) return false;
  const { protocol, hostname } = new URL(text);
  const isLoopback = hostname === 'localhost' || (isIP(hostname) === 4 && hostname.startsWith('127.'));
  return protocol === 'https:' || (protocol === 'http:' && isLoopback);
}
