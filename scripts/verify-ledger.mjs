#!/usr/bin/env node
/**
 * Verifies an export of a ledger (`ecluse ledger export`): that no row was changed, removed, added or moved since it was signed.
 *
 *   node verify-ledger.mjs [--key ID] FILE
 *
 * It needs nothing but Node 20 or later. `--key`: the id of the node's key, as you were told it when you became a tenant; without it the key of the
 * export itself is believed, which proves that the file is whole, not who made it. Exit codes: 0 it fits, 1 it does not, 2 it could not be read, or wrong
 * usage. It is read line by line, so it may be longer than memory.
 *
 * What is hashed and signed is told in the tenant's guide, so that this can be written anew in any language.
 */
import { createHash, createPublicKey, verify } from 'node:crypto';
import { closeSync, openSync, readSync, realpathSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const FIRST_QUANTITIES = ['cpuNs', 'memoryByteMs', 'requests', 'ingressBytes', 'egressBytes', 'heldMs', 'snapshotByteMs'];
const LATER_QUANTITIES = ['diskByteMs', 'streamMs'];
const QUANTITIES = [...FIRST_QUANTITIES, ...LATER_QUANTITIES];
/** Exports of format 1 say no formats of their rows and heads, and have no later quantities. */
const EXPORT_FORMATS = ['ecluse-ledger-export-1', 'ecluse-ledger-export-2'];
const ZEROS = '0'.repeat(64);
/** Lines of rows have some 600 bytes, and the first one 180 for each earlier key. */
const LINE_BYTES_MAX = 1024 * 1024;
const PIECE_BYTES = 64 * 1024;
const LINE_END = 10;

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const textOf = (fields) => Buffer.from(JSON.stringify(fields.map(String)), 'utf8');
const integer = (text) => {
  if (typeof text !== 'string' || !/^-?\d{1,40}$/.test(text)) throw new Error(`${JSON.stringify(text)} is no integer in digits`);
  return BigInt(text);
};

class Misfit extends Error {}
/** Nothing is known of whether it fits. */
class Unreadable extends Error {}

/** What a row or head says, where its format has all that it says. */
function quantitiesOf(what, said, hasLater) {
  for (const name of LATER_QUANTITIES)
    if (!hasLater && integer(said[name] ?? '0') !== 0n) throw new Misfit(`${what}: its format has no ${name}, and it says one`);
  return (hasLater ? QUANTITIES : FIRST_QUANTITIES).map((name) => integer(said[name]));
}

function keyOf({ id, publicKey }) {
  const key = createPublicKey(publicKey);
  if (key.asymmetricKeyType !== 'ed25519') throw new Misfit('the export names a key of another kind than Ed25519');
  if (sha256(key.export({ type: 'spki', format: 'der' })) !== id)
    throw new Misfit(`the id of key ${id} is not that of its public half`);
  return [id, key];
}

function checkSignature(what, fields, { key, signature }, keys) {
  const publicKey = keys.get(key);
  if (publicKey === undefined) throw new Misfit(`${what}: it is signed by another key (${String(key).slice(0, 16)})`);
  if (typeof signature !== 'string' || !verify(undefined, textOf([...fields, key]), publicKey, Buffer.from(signature, 'base64')))
    throw new Misfit(`${what}: its signature is not of what it says: it was changed, or another key signed it`);
}

/** The signed end vouches for earlier keys, and for the heads of days that they signed. What is of the export's own moment they signed none of. */
function checkHead(head, tenant, keys) {
  const { day, sequence = 0, number, hash, totals, signedMs } = head;
  const { format = sequence === 0 ? 1 : 2 } = head;
  const what = `head of ${day}`;
  if (![1, 2, 3].includes(format) || (format === 1 && sequence !== 0)) throw new Misfit(`${what}: it is of an unknown format`);
  const named = [`ecluse-ledger-head-${format}`, head.tenant, day, ...(format === 1 ? [] : [sequence])];
  const sums = [integer(totals.rows), ...quantitiesOf(what, totals, format === 3)];
  checkSignature(what, [...named, number, hash, ...sums, signedMs], head, day === 'open' ? keys.own : keys.all);
  if (head.tenant !== tenant) throw new Misfit(`head of ${day}: it is of tenant ${head.tenant}`);
}

/** The chain as far as it was looked at. */
function startOf(start, keys) {
  if (!EXPORT_FORMATS.includes(start?.format)) throw new Misfit('the first line is none of an export that this program knows');
  const sums = { rows: 0n, ...Object.fromEntries(QUANTITIES.map((name) => [name, 0n])) };
  if (start.after === null) return { number: 0, hash: ZEROS, sums };
  checkHead(start.after, start.tenant, keys);
  for (const name of Object.keys(sums)) sums[name] = integer(start.after.totals[name] ?? '0');
  return { number: start.after.number, hash: start.after.hash, sums };
}

function checkRow(row, tenant, at, ended) {
  const fail = (why) => {
    throw new Misfit(`row ${row.number}: ${why}`);
  };
  if (row.number > at.number + 1) fail(`rows ${at.number + 1} to ${row.number - 1} are missing before it`);
  if (row.number !== at.number + 1) fail(`it stands where row ${at.number + 1} should be`);
  if (row.tenant !== tenant) fail(`it is of tenant ${row.tenant}`);
  const fields = [
    row.tenant,
    row.number,
    row.kind,
    row.reason,
    row.container,
    row.incarnation,
    row.seq,
    row.host,
    row.fromMs,
    row.toMs,
  ];
  const { format = 1 } = row;
  if (![1, 2].includes(format)) fail('it is of an unknown format');
  const quantities = quantitiesOf(`row ${row.number}`, row, format === 2);
  if (sha256(textOf([`ecluse-ledger-row-${format}`, at.hash, ...fields, ...quantities])) !== row.hash)
    fail('its hash is not that of its fields and the hash before it');
  if (row.toMs < row.fromMs) fail('it ends before it begins');
  at.number = row.number;
  at.hash = row.hash;
  at.sums.rows += 1n;
  quantities.forEach((value, index) => (at.sums[QUANTITIES[index]] += value));
  if (row.kind === 'correction') return;
  if (!['interval', 'snapshot', 'disk'].includes(row.kind)) fail(`it is of the unknown kind ${row.kind}`);
  if (quantities.some((value) => value < 0n)) fail('it is an interval with less than nothing');
  if (row.kind !== 'interval') return;
  const key = `${row.container} ${row.incarnation}`;
  const last = ended.get(key);
  if (last !== undefined && (row.seq !== last.seq + 1 || row.fromMs !== last.toMs))
    fail('it does not follow the interval before it of its container');
  ended.set(key, { seq: row.seq, toMs: row.toMs });
}

function checkHeadAt(head, tenant, at, keys) {
  checkHead(head, tenant, keys);
  if (head.number !== at.number)
    throw new Misfit(`head of ${head.day}: it is about row ${head.number}, and stands after row ${at.number}`);
  if (head.hash !== at.hash) throw new Misfit(`head of ${head.day}: the chain had another row ${at.number} when it was signed`);
  for (const [name, sum] of Object.entries(at.sums))
    if (integer(head.totals[name] ?? '0') !== sum)
      throw new Misfit(`head of ${head.day}: its sum ${name} is not that of the rows`);
}

/** The lines of what comes in pieces, cut wherever; each with its line end, if it has one. */
function* linesOf(pieces) {
  let [parts, length] = [[], 0];
  for (const piece of pieces) {
    let from = 0;
    while (from < piece.length) {
      const at = piece.indexOf(LINE_END, from);
      const part = piece.subarray(from, at === -1 ? piece.length : at + 1);
      from += part.length;
      length += part.length;
      if (length > LINE_BYTES_MAX) throw new Unreadable(`it has a line of more than ${LINE_BYTES_MAX} bytes`);
      parts.push(part);
      if (at === -1) continue;
      yield parts.length === 1 ? part : Buffer.concat(parts);
      [parts, length] = [[], 0];
    }
  }
  if (length > 0) yield Buffer.concat(parts);
}

function parseLine(bytes, number) {
  if (bytes.at(-1) !== LINE_END) throw new Misfit('the export is truncated: its last line has no end');
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    throw new Misfit(`line ${number} is no JSON`);
  }
}

function checkEnd(end, export_, keys) {
  const { tenant, rows, heads, sha256: digest } = end;
  checkSignature('the end', ['ecluse-ledger-export-end-1', tenant, rows, heads, digest], end, keys.own);
  if (tenant !== export_.tenant || rows !== export_.rows || heads !== export_.heads)
    throw new Misfit('the end: it is of another export');
  if (digest !== export_.digest) throw new Misfit('the end: a line before it was changed');
}

/** Heads are counted, from the chain's first one on: none may be left out. Those from before they were counted have no number. */
function checkSequence({ day, sequence = 0 }, seen) {
  const next = seen.place === undefined ? undefined : seen.place + 1;
  // What an export to this moment ends with would be the next, or the one that was signed while it was made.
  const fits = sequence === next || (day === 'open' && sequence === seen.place) || next === undefined;
  if (sequence === 0 ? seen.isCounted : !fits)
    throw new Misfit(`head of ${day}: it is head ${sequence} of the chain, and ${seen.place} came before it`);
  seen.isCounted ||= sequence > 0;
  seen.place = sequence > 0 ? sequence : next;
}

/** The rows and heads after the first line, in their order. */
function checkLine(value, seen, start, keys) {
  if (value.row !== undefined) {
    checkRow(value.row, start.tenant, seen.at, seen.ended);
    seen.rows += 1;
    if (value.row.reason === 'from before the chain') seen.fromBefore += 1;
    if (value.row.kind === 'correction') seen.corrections += 1;
  } else if (value.head !== undefined) {
    checkHeadAt(value.head, start.tenant, seen.at, keys);
    checkSequence(value.head, seen);
    seen.signed = value.head.number;
    seen.heads += 1;
  } else throw new Misfit('a line is neither a row nor a head');
}

/** What the first line says, and nothing seen after it. */
function begin({ export: start }, wantedKey) {
  if (start === undefined) throw new Misfit('the first line is none of an export that this program knows');
  const own = keyOf(start.key);
  const keys = { own: new Map([own]), all: new Map([own, ...start.earlierKeys.map(keyOf)]) };
  if (wantedKey !== undefined && start.key.id !== wantedKey)
    throw new Misfit(`the export is of another key (${start.key.id.slice(0, 16)})`);
  const at = startOf(start, keys);
  // How many heads came before; unknown after one that has no number.
  const before = start.after === null ? 0 : start.after.sequence || undefined;
  const counts = { rows: 0, heads: 0, fromBefore: 0, corrections: 0 };
  return { start, keys, at, place: before, isCounted: before > 0, ended: new Map(), ...counts, signed: at.number, isOver: false };
}

function finish(end, { start, keys, at, rows, heads, signed }, digest) {
  checkEnd(end, { tenant: start.tenant, rows, heads, digest }, keys);
  if (signed !== at.number) throw new Misfit('the last rows are under no signed head');
}

/** Looks at one line after the other: what it keeps does not grow with rows. */
class Verification {
  #digest = createHash('sha256');
  #lines = 0;
  #wantedKey;
  #seen;

  constructor(wantedKey) {
    this.#wantedKey = wantedKey;
  }

  take(bytes) {
    this.#lines += 1;
    const value = parseLine(bytes, this.#lines);
    if (this.#seen?.isOver) throw new Misfit('there are lines after the end');
    if (this.#seen === undefined) this.#seen = begin(value, this.#wantedKey);
    else if (value.end === undefined) checkLine(value, this.#seen, this.#seen.start, this.#seen.keys);
    else {
      finish(value.end, this.#seen, this.#digest.digest('hex'));
      this.#seen.isOver = true;
      return;
    }
    this.#digest.update(bytes);
  }

  end() {
    if (!this.#seen?.isOver) throw new Misfit('the export is truncated: its end is missing');
    const { start, at, rows, heads, fromBefore, corrections } = this.#seen;
    return { tenant: start.tenant, key: start.key.id, at, rows, heads, fromBefore, corrections };
  }
}

/** What is wrong with an export, in one line, or what is in it. `pieces`: its bytes, cut wherever. Throws where they cannot be read. */
export function verifyPieces(pieces, wantedKey) {
  const verification = new Verification(wantedKey);
  try {
    for (const bytes of linesOf(pieces)) verification.take(bytes);
    return { fits: true, ...verification.end() };
  } catch (error) {
    if (error instanceof Unreadable) throw error;
    return { fits: false, why: error instanceof Misfit ? error.message : `a line is not what it should be: ${error.message}` };
  }
}

export function verifyExport(text, wantedKey) {
  return verifyPieces([Buffer.from(text, 'utf8')], wantedKey);
}

function reading(step) {
  try {
    return step();
  } catch (error) {
    throw new Unreadable(error.message);
  }
}

function* piecesOf(file) {
  const descriptor = reading(() => openSync(file, 'r'));
  try {
    for (;;) {
      const piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
      const length = reading(() => readSync(descriptor, piece));
      if (length === 0) return;
      yield piece.subarray(0, length);
    }
  } finally {
    closeSync(descriptor);
  }
}

/** Undefined: they are none that it knows. */
function argumentsOf(args) {
  try {
    const { values, positionals } = parseArgs({ args, options: { key: { type: 'string' } }, allowPositionals: true });
    const [file] = positionals;
    const isKey = values.key === undefined || /^[0-9a-f]{64}$/.test(values.key);
    return positionals.length === 1 && isKey ? { file, wantedKey: values.key } : undefined;
  } catch {
    return undefined;
  }
}

function main(args) {
  const wanted = argumentsOf(args);
  if (wanted === undefined) {
    console.error('usage: node verify-ledger.mjs [--key ID] FILE (an ID has 64 hexadecimal digits)');
    return 2;
  }
  const { file, wantedKey } = wanted;
  let verdict;
  try {
    verdict = verifyPieces(piecesOf(file), wantedKey);
  } catch (error) {
    console.error(`it cannot be read: ${error.message}`);
    return 2;
  }
  if (!verdict.fits) {
    console.error(`it does not fit: ${verdict.why}`);
    return 1;
  }
  const { tenant, rows, heads, fromBefore, corrections, at: end, key } = verdict;
  console.log(`it fits: ${rows} rows of tenant ${tenant} up to number ${end.number}, ${heads} heads, signed by key ${key}`);
  if (wantedKey === undefined)
    console.log('the key is the one that the export names; compare it with the one that you were told');
  if (fromBefore > 0) console.log(`${fromBefore} rows are from before the chain: it proves that they did not change since`);
  if (corrections > 0) console.log(`${corrections} rows are corrections`);
  for (const name of QUANTITIES) console.log(`${name}: ${end.sums[name]} since the chain began`);
  return 0;
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url))
  process.exitCode = main(process.argv.slice(2));
