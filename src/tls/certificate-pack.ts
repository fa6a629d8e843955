/**
 * Certificates in one piece of memory: as OpenSSL has them (DER), with their names, and each chain once. A hundred thousand certificates as objects and PEM
 * texts took 2.4 KB each in every process, and V8 had to look at a million objects in each of its collections (2026-11); packed they are a thousand buffers.
 *
 * FORMAT, little-endian   u32 where the records begin; chains, each u32 bytes and PEM text; records up to the end
 * RECORD   u32 bytes of it, u32 hash of the name, f64 notAfterMs, u32 where its chain is, u16 bytes of the name, u16 hosts, u32 bytes of the leaf,
 *          u32 bytes of the key's PEM label and its DER; then the name (none: it is the first host), the hosts (u8 bytes of each before it), the leaf, the
 *          key's label (u8 bytes before it), the key. A key without a label is one of P-256: its 32 bytes, and u16 where the leaf has what belongs to it
 *
 * A pack is immutable. It is read by its own process and by workers of the same program (`PROTOCOL_VERSION`), and never from a disk. A bare one says what
 * certificates cover, and has neither leaves nor keys.
 */
import { reasonOf } from '#errors';
import { hashOf } from '#sharded-map';
import type { CertificateChain, Coverage, EdgeCertificate } from './certificate.ts';
import { derOf, pemBlockOf, readPem } from './pem-blocks.ts';

const HEAD_BYTES = 4;
const NAME_HASH_AT = 4;
const NOT_AFTER_AT = 8;
const CHAIN_AT = 16;
const NAME_BYTES_AT = 20;
const HOSTS_AT = 22;
const LEAF_BYTES_AT = 24;
const KEY_BYTES_AT = 28;
const RECORD_HEAD_BYTES = 32;
/** A directory has two numbers for each record: the hash of its name, and where it is. */
const PAIR = 2;
const LABEL = 'CERTIFICATE';
const KEY_LABEL = 'PRIVATE KEY';
/** A key of P-256 (PKCS #8 around RFC 5915): all but its 32 bytes is the same, or in the certificate. */
const SCALAR_BYTES = 32;
const POINT_BYTES = 65;
const P256_HEAD = Buffer.from('308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420', 'hex');
const P256_MIDDLE = Buffer.from('a144034200', 'hex');
const NOTHING = Buffer.alloc(0);
/** After one empty chain. */
const BARE_RECORDS_AT = 2 * HEAD_BYTES;
const BARE_BYTES_MIN = 512;
/** A pack of a hundred thousand certificates, with what its texts take. */
const SCRATCH_BYTES = 512 * 1024;

/** One certificate in a pack: reads as it is asked. To be looked at and let go: it holds the memory of its neighbours, too. */
export class PackedCertificate implements EdgeCertificate {
  readonly #bytes: Buffer;
  readonly #at: number;

  constructor(bytes: Buffer, at: number, id: number) {
    this.#bytes = bytes;
    this.#at = at;
    this.id = id;
  }

  get name(): string {
    const from = this.#at + RECORD_HEAD_BYTES;
    const bytes = this.#nameBytes;
    if (bytes > 0) return this.#bytes.toString('utf8', from, from + bytes);
    return this.#bytes.readUInt16LE(this.#at + HOSTS_AT) === 0
      ? ''
      : this.#bytes.toString('latin1', from + 1, from + 1 + this.#bytes.readUInt8(from));
  }

  get notAfterMs(): number {
    return this.#bytes.readDoubleLE(this.#at + NOT_AFTER_AT);
  }

  get hosts(): readonly string[] {
    const hosts: string[] = [];
    this.#eachHost((from, to) => hosts.push(this.#bytes.toString('latin1', from, to)));
    return hosts;
  }

  /** Tells it from all others that this process ever had. It has another after a change in its pack. */
  readonly id: number;

  get leafPem(): string {
    const [from, to] = this.#leafSpan();
    return pemBlockOf(LABEL, this.#bytes.subarray(from, to));
  }

  get keyPem(): string {
    const [leafAt, from] = this.#leafSpan();
    const to = from + this.#bytes.readUInt32LE(this.#at + KEY_BYTES_AT);
    const labelEnd = from + 1 + this.#bytes.readUInt8(from);
    if (labelEnd === from + 1) {
      const pointAt = leafAt + this.#bytes.readUInt16LE(labelEnd + SCALAR_BYTES);
      const [scalar, point] = [
        this.#bytes.subarray(labelEnd, labelEnd + SCALAR_BYTES),
        this.#bytes.subarray(pointAt, pointAt + POINT_BYTES),
      ];
      return pemBlockOf(KEY_LABEL, Buffer.concat([P256_HEAD, scalar, P256_MIDDLE, point]));
    }
    return pemBlockOf(this.#bytes.toString('latin1', from + 1, labelEnd), this.#bytes.subarray(labelEnd, to));
  }

  get chain(): CertificateChain {
    const from = this.#bytes.readUInt32LE(this.#at + CHAIN_AT);
    const textAt = from + HEAD_BYTES;
    return { pem: this.#bytes.toString('latin1', textAt, textAt + this.#bytes.readUInt32LE(from)) };
  }

  /** Whether `host` is among its names, as it writes them. */
  covers(host: string): boolean {
    let covers = false;
    this.#eachHost((from, to) => {
      covers ||= to - from === host.length && this.#bytes.toString('latin1', from, to) === host;
    });
    return covers;
  }

  get #nameBytes(): number {
    return this.#bytes.readUInt16LE(this.#at + NAME_BYTES_AT);
  }

  /** Returns where the last one ends. */
  #eachHost(visit: (from: number, to: number) => void): number {
    let from = this.#at + RECORD_HEAD_BYTES + this.#nameBytes;
    for (let left = this.#bytes.readUInt16LE(this.#at + HOSTS_AT); left > 0; left -= 1) {
      const to = from + 1 + this.#bytes.readUInt8(from);
      visit(from + 1, to);
      from = to;
    }
    return from;
  }

  #leafSpan(): readonly [from: number, to: number] {
    const from = this.#eachHost(() => undefined);
    return [from, from + this.#bytes.readUInt32LE(this.#at + LEAF_BYTES_AT)];
  }
}

/**
 * Memory for the parts of a pack while it is made. PERF: as buffers of their own, those of a hundred thousand certificates were 90 MB that V8 did not give back
 * while a node started.
 */
class Scratch {
  #bytes = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  #used = 0;
  readonly take = (bytes: number): Buffer => {
    if (this.#used + bytes > this.#bytes.length) {
      // What was taken stays as it is, with those who have it.
      this.#bytes = Buffer.allocUnsafeSlow(Math.max(SCRATCH_BYTES, bytes));
      this.#used = 0;
    }
    this.#used += bytes;
    return this.#bytes.subarray(this.#used - bytes, this.#used);
  };

  /** What was taken is needed no more. */
  clear(): void {
    this.#used = 0;
  }
}

const scratch = new Scratch();

/** Writes a bare pack without an object for each certificate. */
export class BarePackWriter {
  #bytes = NOTHING;
  #length = 0;

  /** Each name once. */
  write(coverage: Coverage): void {
    const record = recordOf(coverage, NOTHING, { label: '', der: NOTHING });
    record.writeUInt32LE(HEAD_BYTES, CHAIN_AT);
    const from = Math.max(BARE_RECORDS_AT, this.#length);
    this.#length = from + record.length;
    if (this.#length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(BARE_BYTES_MIN, 2 * this.#length));
      this.#bytes.copy(larger);
      this.#bytes = larger;
    }
    record.copy(this.#bytes, from);
    scratch.clear();
  }

  pack(): CertificatePack {
    if (this.#length === 0) return CertificatePack.empty;
    const own = Buffer.allocUnsafeSlow(this.#length);
    this.#bytes.copy(own, 0, 0, this.#length);
    own.writeUInt32LE(BARE_RECORDS_AT, 0);
    return new CertificatePack(own);
  }
}

/** A record, and the chain that goes with it: of a pack, or for the next one. */
interface Part {
  readonly record: Buffer;
  readonly chain: Buffer;
}

/** Of the next certificate. Numbers are exact up to 2^53. */
let nextId = 0;

export class CertificatePack {
  static readonly empty = new CertificatePack(Buffer.from([HEAD_BYTES, 0, 0, 0]));

  /** `refused` hears of those that cannot be in a pack, which are left out. */
  static of(certificates: readonly EdgeCertificate[], refused: (name: string, reason: string) => void): CertificatePack {
    const parts = certificates.flatMap((certificate) => {
      try {
        return [partOf(certificate)];
      } catch (error) {
        refused(certificate.name, reasonOf(error));
        return [];
      }
    });
    return packOf(parts);
  }

  readonly bytes: Buffer;
  readonly #directory: Uint32Array;
  readonly #firstId: number;

  /** `bytes`: as another pack has them. They are this one's from here on. */
  constructor(bytes: Buffer) {
    this.bytes = bytes;
    const pairs: number[] = [];
    for (let at = bytes.readUInt32LE(0); at < bytes.length; at += bytes.readUInt32LE(at)) {
      pairs.push(bytes.readUInt32LE(at + NAME_HASH_AT), at);
    }
    this.#directory = Uint32Array.from(pairs);
    this.#firstId = nextId;
    nextId += this.size;
  }

  get size(): number {
    return this.#directory.length / PAIR;
  }

  /** Tells it from all others of this process that are not empty. */
  get id(): number {
    return this.#firstId;
  }

  /** All whose names have this hash: one, but for chance. */
  named(nameHash: number): readonly PackedCertificate[] {
    const found: PackedCertificate[] = [];
    const directory = this.#directory;
    for (let index = 0; index < directory.length; index += PAIR) {
      if (directory[index] === nameHash) found.push(this.#at(index));
    }
    return found;
  }

  *values(): Generator<PackedCertificate> {
    for (let index = 0; index < this.#directory.length; index += PAIR) yield this.#at(index);
  }

  /** A pack without those of `names` that are here, and with `added`. */
  with(added: readonly EdgeCertificate[], names: ReadonlySet<string>): CertificatePack {
    return packOf([...this.#partsBut(names), ...added.map(partOf)]);
  }

  /** The same of a bare pack. */
  withBare(added: readonly Coverage[], names: ReadonlySet<string>): CertificatePack {
    return packOf([...this.#partsBut(names), ...added.map(barePartOf)]);
  }

  #at(index: number): PackedCertificate {
    return new PackedCertificate(this.bytes, this.#directory[index + 1] ?? 0, this.#firstId + index / PAIR);
  }

  *#partsBut(names: ReadonlySet<string>): Generator<Part> {
    const { bytes } = this;
    for (let index = 0; index < this.#directory.length; index += PAIR) {
      if (names.has(this.#at(index).name)) continue;
      const at = this.#directory[index + 1] ?? 0;
      const chainAt = bytes.readUInt32LE(at + CHAIN_AT);
      yield {
        record: bytes.subarray(at, at + bytes.readUInt32LE(at)),
        chain: bytes.subarray(chainAt + HEAD_BYTES, chainAt + HEAD_BYTES + bytes.readUInt32LE(chainAt)),
      };
    }
  }
}

/** Throws where the leaf or the key is not one PEM block. */
function partOf(certificate: EdgeCertificate): Part {
  const { name, leafPem, chain, keyPem } = certificate;
  const leaf = blockOf(name, leafPem).der;
  return {
    record: recordOf(certificate, leaf, shortKeyOf(blockOf(name, keyPem), leaf)),
    chain: Buffer.from(chain.pem, 'latin1'),
  };
}

function barePartOf(coverage: Coverage): Part {
  return { record: recordOf(coverage, NOTHING, { label: '', der: NOTHING }), chain: NOTHING };
}

/** PERF: one buffer, written piece by piece; a hundred thousand are made while a node starts. */
function recordOf({ name, hosts, notAfterMs }: Coverage, leaf: Buffer, key: Block): Buffer {
  const distinct = hosts.length > 1 ? [...new Set(hosts)] : hosts;
  const written = name === distinct[0] ? '' : name;
  const nameBytes = Buffer.byteLength(written);
  const keyBytes = 1 + key.label.length + key.der.length;
  const hostBytes = distinct.reduce((sum, host) => sum + 1 + host.length, 0);
  const record = scratch.take(RECORD_HEAD_BYTES + nameBytes + hostBytes + leaf.length + keyBytes);
  record.writeUInt32LE(record.length, 0);
  record.writeUInt32LE(hashOf(name), NAME_HASH_AT);
  record.writeDoubleLE(notAfterMs, NOT_AFTER_AT);
  record.writeUInt32LE(0, CHAIN_AT);
  record.writeUInt16LE(nameBytes, NAME_BYTES_AT);
  record.writeUInt16LE(distinct.length, HOSTS_AT);
  record.writeUInt32LE(leaf.length, LEAF_BYTES_AT);
  record.writeUInt32LE(keyBytes, KEY_BYTES_AT);
  let at = RECORD_HEAD_BYTES + record.write(written, RECORD_HEAD_BYTES);
  for (const host of distinct) at = writeShort(record, at, host);
  at += leaf.copy(record, at);
  at = writeShort(record, at, key.label);
  key.der.copy(record, at);
  return record;
}

/** A key without what its certificate has as well: a tenth of the memory. */
function shortKeyOf(key: Block, leaf: Buffer): Block {
  const { label, der } = key;
  const scalarEnd = P256_HEAD.length + SCALAR_BYTES;
  const pointFrom = scalarEnd + P256_MIDDLE.length;
  const isP256 =
    label === KEY_LABEL &&
    der.length === pointFrom + POINT_BYTES &&
    der.subarray(0, P256_HEAD.length).equals(P256_HEAD) &&
    der.subarray(scalarEnd, pointFrom).equals(P256_MIDDLE);
  const pointAt = isP256 ? leaf.indexOf(der.subarray(pointFrom)) : -1;
  if (pointAt === -1 || pointAt > 0xff_ff) return key;
  const short = scratch.take(SCALAR_BYTES + 2);
  der.copy(short, 0, P256_HEAD.length, scalarEnd);
  short.writeUInt16LE(pointAt, SCALAR_BYTES);
  return { label: '', der: short };
}

interface Block {
  readonly label: string;
  readonly der: Buffer;
}

function blockOf(name: string, pem: string): Block {
  const reading = readPem(pem);
  const [block, another] = reading.kind === 'blocks' ? reading.blocks : [];
  if (block === undefined || another !== undefined) throw new Error(`a text of certificate "${name}" is not one PEM block`);
  return { label: block.label, der: derOf(block, scratch.take) };
}

/** Host names have 253 characters at most, and are ASCII. Returns where it ends. */
function writeShort(record: Buffer, at: number, text: string): number {
  record.writeUInt8(text.length, at);
  return at + 1 + record.write(text, at + 1, 'latin1');
}

function packOf(parts: readonly Part[]): CertificatePack {
  const pack = parts.length === 0 ? CertificatePack.empty : new CertificatePack(joined(parts));
  scratch.clear();
  return pack;
}

function joined(parts: readonly Part[]): Buffer {
  const chains = new Map<string, { readonly bytes: Buffer; readonly at: number }>();
  let size = HEAD_BYTES;
  const chainAts = parts.map(({ chain }) => {
    const text = chain.toString('latin1');
    const known = chains.get(text);
    if (known !== undefined) return known.at;
    const at = size;
    chains.set(text, { bytes: chain, at });
    size += HEAD_BYTES + chain.length;
    return at;
  });
  const recordsAt = size;
  for (const { record } of parts) size += record.length;
  // Not of Node's pool: it would hold eight KiB for each small one.
  const all = Buffer.allocUnsafeSlow(size);
  all.writeUInt32LE(recordsAt, 0);
  for (const { bytes, at } of chains.values()) {
    all.writeUInt32LE(bytes.length, at);
    bytes.copy(all, at + HEAD_BYTES);
  }
  let at = recordsAt;
  for (const [index, { record }] of parts.entries()) {
    record.copy(all, at);
    all.writeUInt32LE(chainAts[index] ?? 0, at + CHAIN_AT);
    at += record.length;
  }
  return all;
}
