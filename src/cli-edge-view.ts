/** `history`, `config show`, `explain` and their kin: what there is of the edge. */
import { stringify } from 'yaml';
import * as z from 'zod';
import type { AdminClient } from '#admin/client.ts';
import { actionsSchema } from '#routing/operator/action-schema.ts';
import type { EdgeExplanation, EndpointHealthView, VersionView } from '#admin/edge-control.ts';
import type { CertificateExplanation } from '#admin/certificate-control.ts';
import type { DiffEntry } from '#routing/operator/diff.ts';
import { routeName } from '#routing/operator/diff.ts';
import { urlOf, weightOf } from '#routing/operator/service-schema.ts';
import { certificatesOf } from '#routing/operator/tls-schema.ts';
import type { ServiceSettings } from '#routing/operator/service-schema.ts';
import type { SplitShare } from '#routing/route-table.ts';
import type { LintFinding } from '#routing/operator/lint.ts';
import type { ChangeFlags, EdgeCommand } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, tableText } from './cli-text.ts';

type ViewCommand = Exclude<EdgeCommand, ChangeFlags>;

export async function showEdge(command: ViewCommand, { edge }: AdminClient, output: Output): Promise<void> {
  const tell = (value: unknown, text: string): void => {
    if (command.json) writeJson(output, value);
    else output.write(text);
  };
  switch (command.kind) {
    case 'history': {
      const versions = await edge.history(command.last);
      tell(versions, historyText(versions));
      return;
    }
    case 'diff-since': {
      const { diff, differences } = await edge.diff(command.since);
      tell({ diff, differences }, diff.length === 0 ? 'nothing\n' : `${diffText(diff)}${moreText(diff.length, differences)}`);
      return;
    }
    case 'config-show': {
      const view = await edge.settings();
      tell(view, `# version ${String(view.version)}\n${stringify(view.document)}`);
      return;
    }
    case 'config-lint': {
      const findings = await edge.lint();
      tell(findings, lintText(findings));
      return;
    }
    case 'route-ls': {
      const { routes } = (await edge.settings()).document;
      const wanted = routes.filter(({ match }) => command.host === undefined || match.host === command.host);
      const rows = wanted.map((route) => [routeName(route.match), leadsTo(route), actionsText(route)]);
      tell(wanted, tableText(['ROUTE', 'SERVICE', 'ACTIONS'], rows));
      return;
    }
    case 'service-ls': {
      const { services } = (await edge.settings()).document;
      const health = Map.groupBy(await edge.health(), ({ service }) => service);
      const rows = Object.entries(services).map(([name, service]) => [
        name,
        endpointsText(service),
        unhealthyText(health.get(name) ?? []),
        wishesText(service),
      ]);
      const told = Object.entries(services).map(([name, service]) => [name, { ...service, ...checkedOf(health.get(name)) }]);
      tell(Object.fromEntries(told), tableText(['SERVICE', 'ENDPOINTS', 'UNHEALTHY', 'SETTINGS'], rows));
      return;
    }
    case 'explain': {
      const { host, target, method, headers, version } = command;
      const explanation = await edge.explain({ host, target, method, headers }, version);
      tell(explanation, explainText(explanation));
      return;
    }
  }
}

function lintText(findings: readonly LintFinding[]): string {
  if (findings.length === 0) return 'nothing to say\n';
  return findings.map(({ at, message }) => `${plainText(at)}: ${plainText(message)}\n`).join('');
}

export function moreText(shown: number, all: number): string {
  return all > shown ? `and ${String(all - shown)} more\n` : '';
}

const SIGNS = { added: '+', removed: '-', changed: '~' } as const;

export function diffText(diff: readonly DiffEntry[]): string {
  return diff
    .map(({ change, kind, name, before, after }) => {
      const from = before === undefined ? '' : ` ${detailOf(before)}`;
      const to = after === undefined ? '' : `${before === undefined ? '' : ' →'} ${detailOf(after)}`;
      if (kind === 'order') return `${SIGNS[change]} order of the routes of ${plainText(name)}\n`;
      return `${SIGNS[change]} ${kind} ${plainText(name)}:${plainText(from)}${plainText(to)}\n`;
    })
    .join('');
}

const shareSchema = z.object({ service: z.string(), weight: z.number() });
const detailSchema = z.looseObject({
  endpoints: z.array(z.union([z.string(), z.object({ url: z.string(), weight: z.int().exactOptional() })])).default([]),
  service: z.string().optional(),
  split: z.array(shareSchema).optional(),
  actions: actionsSchema.optional(),
  tls: z.unknown().optional(),
  pem: z.string().optional(),
});

/** Of a fingerprint: enough to tell two with the same name apart. */
const SHORT = 23;

type Leading = Pick<z.infer<typeof detailSchema>, 'service' | 'split' | 'actions'>;

/** `shop`, or `shop=95,shop-next=5`, or what it answers. */
function leadsTo({ service, split, actions }: Leading): string {
  const { redirect, respond } = actions ?? {};
  if (redirect !== undefined) return `→ ${redirect.to}`;
  if (respond !== undefined) return `answers ${String(respond.status)}`;
  return split === undefined ? (service ?? '') : split.map((share) => `${share.service}=${String(share.weight)}`).join(',');
}

/** The names of the actions beside those that answer. */
function actionsText({ actions = {} }: Leading): string {
  return Object.keys(actions)
    .filter((name) => name !== 'redirect' && name !== 'respond')
    .join(' ');
}

/** A service by its endpoints and what else is wanted of it, a route by its service, actions and TLS, a CA bundle by whose certificates it has. */
function detailOf(value: unknown): string {
  const detail = detailSchema.parse(value);
  const { service, split, actions, tls, pem } = detail;
  if (pem !== undefined)
    return certificatesOf(pem)
      .map(({ subject, fingerprint256 }) => `"${subject.split('\n').join(', ')}" ${fingerprint256.slice(0, SHORT)}`)
      .join(', ');
  if (service !== undefined || split !== undefined || actions !== undefined) {
    const secure = tls === undefined ? '' : `tls=${JSON.stringify(tls)}`;
    return [leadsTo(detail), actionsText(detail), secure].filter((text) => text !== '').join(' ');
  }
  return [endpointsText(detail), wishesText(detail)].filter((text) => text !== '').join(' ');
}

/** `http://127.0.0.1:9001 http://127.0.0.1:9002=3`, as `service set` takes them. */
function endpointsText({ endpoints }: Pick<ServiceSettings, 'endpoints'>): string {
  if (endpoints.length === 0) return 'no endpoint';
  return endpoints
    .map((endpoint) => (weightOf(endpoint) === 1 ? urlOf(endpoint) : `${urlOf(endpoint)}=${String(weightOf(endpoint))}`))
    .join(' ');
}

/** What checks found, beside what was written; nothing where nothing is checked. */
function checkedOf(checked: readonly EndpointHealthView[] | undefined): { readonly checked?: readonly object[] } {
  return checked === undefined
    ? {}
    : { checked: checked.map(({ endpoint, healthy, reason, sinceMs }) => ({ endpoint, healthy, reason, sinceMs })) };
}

/** `http://127.0.0.1:9001 (it refused the connection)`. */
function unhealthyText(checked: readonly EndpointHealthView[]): string {
  const unhealthy = checked.filter(({ healthy }) => !healthy);
  return plainText(unhealthy.map(({ endpoint, reason }) => `${endpoint} (${reason})`).join(', '));
}

/** All but the endpoints: `balance=hash(ip) sendProxy=2`. */
function wishesText(service: object): string {
  const named = Object.entries(service).filter(([key]) => key !== 'endpoints');
  return named.map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`).join(' ');
}

function historyText(versions: readonly VersionView[]): string {
  const rows = versions.map(({ version, atMs, cause, note, services, hosts }) => [
    String(version),
    new Date(atMs).toISOString(),
    cause,
    String(services),
    String(hosts),
    plainText(note),
  ]);
  return tableText(['VERSION', 'TIME', 'CAUSE', 'SERVICES', 'HOSTS', 'NOTE'], rows);
}

function shares(split: readonly SplitShare[]): string {
  return split.map(({ serviceId, weight }) => `${serviceId}=${String(weight)}`).join(', ');
}

function certificateText({ kind, name, hosts, source, notAfterMs }: CertificateExplanation): string {
  const until = notAfterMs === null ? '' : `, until ${new Date(notAfterMs).toISOString()}`;
  switch (kind) {
    case 'added':
      return `${name} (${source ?? '?'}), for ${hosts.join(', ')}${until}`;
    case 'internal':
      return `of the node's own CA, for ${hosts.join(', ')}${until}`;
    case 'default':
      return `the node's default${until}`;
    case 'none':
      return 'none: the handshake ends with the alert unrecognized_name';
  }
}

function explainText({
  version,
  host,
  path,
  route,
  tenant,
  outcome,
  endpoints,
  health,
  certificate,
  candidates,
}: EdgeExplanation): string {
  const lines = [
    `request: ${host ?? '?'} ${path}, at version ${String(version)}`,
    `outcome: ${outcome}`,
    ...(route === undefined
      ? []
      : [
          `route: ${routeName(route)}`,
          `service: ${route.split === undefined ? route.serviceId : shares(route.split)} of ${tenant ?? ''}`,
          ...(route.actions === undefined ? [] : [`actions: ${Object.keys(route.actions).join(', ')}`]),
        ]),
    ...endpoints.map(({ address, port, hostName, state, weight = 1 }) => {
      const where = hostName === '' ? '' : ` on ${hostName}`;
      const share = weight === 1 ? '' : `, weight ${String(weight)}`;
      return `endpoint: ${address}:${String(port)}${where}${state === 'asleep' ? ', asleep' : ''}${share}`;
    }),
    ...health.map(({ endpoint, healthy, reason }) => {
      const why = reason === '' ? '' : `: ${reason}`;
      return `health of ${endpoint}: ${healthy ? 'healthy' : 'unhealthy'}${why}`;
    }),
    `certificate: ${certificateText(certificate)}`,
    ...candidates.map((candidate) => `  ${routeName(candidate.route)}: ${candidate.verdict}`),
  ];
  return `${lines.map(plainText).join('\n')}\n`;
}
