/**
 * Passwords of basic authentication, as `ecluse hash-password` prints them: scrypt in the form of PHC strings, `$scrypt$ln=14,r=8,p=1$SALT$HASH`.
 *
 * Source: RFC 7914; the PHC string format; RFC 7617 for what clients send.
 */
import { createHmac, randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

const derive = promisify(
  (
    password: string,
    salt: Buffer,
    { logN, bytes }: { readonly logN: number; readonly bytes: number },
    done: (error: Error | null, key: Buffer) => void,
  ) => {
    scrypt(password, salt, bytes, { N: 2 ** logN, r: 8, p: 1, maxmem: 256 * 2 ** logN * 8 }, done);
  },
);

/** 16 MiB and 40 ms of one core: a guess costs that, too. */
const LOG_N = 14;
const SALT_BYTES = 16;
const HASH_BYTES = 32;
const FORM = /^\$scrypt\$ln=(\d{2}),r=8,p=1\$([A-Za-z0-9+/]{16,86})\$([A-Za-z0-9+/]{43,86})$/;
/** What is derived for a name that nobody has, so that names cannot be told by the time that is taken. */
const NOBODY = `$scrypt$ln=${String(LOG_N)},r=8,p=1$${'A'.repeat(22)}$${'A'.repeat(43)}`;

export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const key = await derive(password, salt, { logN: LOG_N, bytes: HASH_BYTES });
  return `$scrypt$ln=${String(LOG_N)},r=8,p=1$${unpadded(salt)}$${unpadded(key)}`;
}

function unpadded(bytes: Buffer): string {
  return bytes.toString('base64').replace(/=+$/, '');
}

/** Whether a password is the one that was hashed. `hash` undefined: it never is, and takes as long. */
export async function isPassword(password: string, hash: string | undefined): Promise<boolean> {
  const found = FORM.exec(hash ?? NOBODY) ?? FORM.exec(NOBODY);
  const [, logN = '', salt = '', key = ''] = found ?? [];
  const expected = Buffer.from(key, 'base64');
  const derived = await derive(password, Buffer.from(salt, 'base64'), { logN: Number(logN), bytes: expected.length });
  return timingSafeEqual(derived, expected) && hash !== undefined;
}

/** Name and password of an `Authorization: Basic` field; undefined: it holds none. */
export function credentialsOf(field: string | undefined): { readonly name: string; readonly password: string } | undefined {
  const encoded = /^basic +([A-Za-z0-9+/]{1,1024}={0,2})$/i.exec(field ?? '')?.[1];
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon === -1 ? undefined : { name: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** Those that were right are remembered, by what they hash to under a key that nobody else has. */
const KNOWN_MAX = 4096;
/** At most so many wait to be looked at, one at a time: the threads that derive are those that write the access log. */
const WAITING_MAX = 64;

export type Verification = { readonly kind: 'user'; readonly name: string } | { readonly kind: 'wrong' | 'busy' };

export class Passwords {
  readonly #secret = randomBytes(32);
  readonly #known = new Set<string>();
  #turn: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** The user that a field names, where it was right before. Synchronous: most requests of a session. */
  known(users: Readonly<Record<string, string>>, field: string | undefined): string | undefined {
    const credentials = credentialsOf(field);
    if (credentials === undefined) return undefined;
    const hash = Object.hasOwn(users, credentials.name) ? users[credentials.name] : undefined;
    return hash !== undefined && this.#known.has(this.#keyOf(field, hash)) ? credentials.name : undefined;
  }

  /** Whether a field holds name and password of a user. `busy`: too many ask. */
  async verify(users: Readonly<Record<string, string>>, field: string | undefined): Promise<Verification> {
    const credentials = credentialsOf(field);
    if (credentials === undefined) return { kind: 'wrong' };
    if (this.#waiting >= WAITING_MAX) return { kind: 'busy' };
    const { name, password } = credentials;
    const hash = Object.hasOwn(users, name) ? users[name] : undefined;
    this.#waiting += 1;
    const turn = this.#turn.then(async () => await isPassword(password, hash));
    this.#turn = turn.catch(() => undefined);
    try {
      if (!(await turn) || hash === undefined) return { kind: 'wrong' };
    } finally {
      this.#waiting -= 1;
    }
    if (this.#known.size >= KNOWN_MAX) this.#known.clear();
    this.#known.add(this.#keyOf(field, hash));
    return { kind: 'user', name };
  }

  #keyOf(field: string | undefined, hash: string): string {
    return createHmac('sha256', this.#secret)
      .update(`${hash}\n${field ?? ''}`)
      .digest('base64');
  }
}
