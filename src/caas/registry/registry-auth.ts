/** Credentials for registries, as Docker's clients send them. Never stored, never logged, never given to an engine. */
import * as z from 'zod';

/** Tokens of cloud registries have some thousand characters. */
const HEADER_CHARS_MAX = 16 * 1024;

const text = z.string().max(HEADER_CHARS_MAX).default('');
const authSchema = z.object({
  username: text,
  password: text,
  /** `user:password` in base64, as in `~/.docker/config.json`. */
  auth: text,
  identitytoken: text,
  registrytoken: text,
  serveraddress: text,
});

export interface RegistryAuth {
  readonly username: string;
  readonly password: string;
  /** For a token server, in place of a password. */
  readonly identityToken: string;
  /** A bearer token for the registry itself. */
  readonly registryToken: string;
  readonly serverAddress: string;
}

/** An object of type AuthConfig; undefined for anything else. Keys in any case, as Go reads them. */
export function registryAuthOf(value: unknown): RegistryAuth | undefined {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const folded = Object.fromEntries(
    Object.entries(value).map(([key, part]: readonly [string, unknown]) => [key.toLowerCase(), part]),
  );
  const parsed = authSchema.safeParse(folded);
  if (!parsed.success) return undefined;
  const { username, password, auth, identitytoken, registrytoken, serveraddress } = parsed.data;
  const pair = Buffer.from(auth, 'base64').toString('utf8');
  const colon = pair.indexOf(':');
  return {
    username: username === '' && colon !== -1 ? pair.slice(0, colon) : username,
    password: username === '' && colon !== -1 ? pair.slice(colon + 1) : password,
    identityToken: identitytoken,
    registryToken: registrytoken,
    serverAddress: serveraddress,
  };
}

/** The header X-Registry-Auth: base64 (either alphabet) of JSON. As in Docker, one that cannot be read counts as none. */
export function parseRegistryAuth(header: string | readonly string[] | undefined): RegistryAuth | undefined {
  if (typeof header !== 'string' || header === '' || header.length > HEADER_CHARS_MAX) return undefined;
  try {
    const value: unknown = JSON.parse(Buffer.from(header, 'base64url').toString('utf8'));
    return registryAuthOf(value);
  } catch {
    return undefined;
  }
}
