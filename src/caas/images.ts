/** Tenants' images: references of their own over content that engines share, and the way of an image to the host that needs it. */
import { PassThrough } from 'node:stream';
import type { Readable } from 'node:stream';
import { createInterface } from 'node:readline';
import * as z from 'zod';
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import { countHolders, dropImage, dropReference, listImages, putImage } from '#state/images.ts';
import type { TenantImage } from '#state/images.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import { dockerError, noSuchImage } from './docker-api/docker-error.ts';
import { EngineError, withoutEnginePaths } from './engine-client.ts';
import { imageSchema } from './engine-answers.ts';
import type { EngineImage } from './engine-answers.ts';
import type { Events } from './events.ts';
import type { Host } from './host.ts';
import { rewriteImageArchive } from './image-archive.ts';
import { engineReference, familiarReference, parseReference, wholeReference } from './image-reference.ts';

export interface ImagesDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  /** In order of preference. */
  readonly hosts: ReadonlyMap<string, Host>;
  readonly events: Events;
}

const PROGRESS_LINE_CHARS_MAX = 64 * 1024;

const lineSchema = z.record(z.string(), z.unknown());
type JsonLine = Readonly<z.infer<typeof lineSchema>>;

export class Images {
  readonly #deps: ImagesDeps;
  readonly #locks = new KeyedLock();

  constructor(deps: ImagesDeps) {
    this.#deps = deps;
  }

  async list(tenant: string): Promise<readonly TenantImage[]> {
    return await listImages(this.#deps.sql, tenant);
  }

  /** The tenant's image that `reference` (name, id or id prefix) means, or undefined. */
  async find(tenant: string, reference: string): Promise<TenantImage | undefined> {
    const images = await this.list(tenant);
    const parsed = parseReference(reference);
    const byName = parsed === undefined ? undefined : images.find((image) => image.references.includes(wholeReference(parsed)));
    if (byName !== undefined) return byName;
    const hex = reference.replace(/^sha256:/, '').toLowerCase();
    if (!/^[0-9a-f]{4,64}$/.test(hex)) return undefined;
    const byId = images.filter((image) => image.imageId.startsWith(`sha256:${hex}`));
    return byId.length === 1 ? byId[0] : undefined;
  }

  /** What an engine knows of an image; undefined where no host has it. */
  async inspect(imageId: string): Promise<EngineImage | undefined> {
    for (const host of this.#deps.hosts.values()) {
      const image = await inspectOn(host, imageId);
      if (image !== undefined) return image;
    }
    return undefined;
  }

  async #checkQuota(tenant: Tenant): Promise<void> {
    const images = await this.list(tenant.name);
    if (images.length >= tenant.quota.imagesMax) {
      throw dockerError(
        403,
        `ecluse: tenant ${tenant.name} holds ${String(images.length)} images, its quota is ${String(tenant.quota.imagesMax)}`,
      );
    }
  }

  /** The host that new images go to: the first that answers. */
  #intake(): Host {
    const [host] = this.#deps.hosts.values();
    if (host === undefined) throw dockerError(503, 'ecluse: there is no host');
    return host;
  }

  /**
   * `docker load`: the archive's names are replaced by the tenant's opaque ones on the way, so that one tenant's `nginx:latest` is never
   * another's. Yields progress lines in Docker's JSON form.
   */
  async *load(tenant: Tenant, archive: Readable, quiet: boolean): AsyncGenerator<Readonly<Record<string, unknown>>> {
    await this.#checkQuota(tenant);
    const host = this.#intake();
    const rewritten = rewriteImageArchive(archive, {
      imagesMax: tenant.quota.imagesMax - (await this.list(tenant.name)).length,
      rename: (whole) => {
        const { repository, tag } = engineReference(tenant.name, whole);
        return `${repository}:${tag}`;
      },
    });
    const answer = await host.client.stream(
      { method: 'POST', path: ['images', 'load'], query: { quiet }, headers: { 'content-type': 'application/x-tar' } },
      rewritten.archive,
    );
    const untagged: string[] = [];
    for await (const line of jsonLines(answer)) {
      const id = typeof line['stream'] === 'string' ? /^Loaded image ID: (sha256:[0-9a-f]{64})/.exec(line['stream']) : null;
      if (id?.[1] !== undefined) untagged.push(id[1]);
      else if (typeof line['error'] === 'string') yield errorLine(line['error']);
      else if (typeof line['status'] === 'string') yield progressLine(line);
    }
    for (const [whole] of await rewritten.references) {
      const { repository, tag } = engineReference(tenant.name, whole);
      const image = await inspectOn(host, `${repository}:${tag}`);
      if (image === undefined) continue; // The engine said why in the lines above.
      await this.#hold(tenant.name, image.Id, whole);
      yield { stream: `Loaded image: ${familiarReference(whole)}\n` };
    }
    for (const imageId of untagged) {
      await this.#hold(tenant.name, imageId, undefined);
      yield { stream: `Loaded image ID: ${imageId}\n` };
    }
  }

  /** `docker import`: a root file system as an image. Returns its id. */
  async import(
    tenant: Tenant,
    archive: Readable,
    options: { readonly reference: string | undefined; readonly message: string; readonly changes: readonly string[] },
  ): Promise<string> {
    await this.#checkQuota(tenant);
    const parsed = options.reference === undefined ? undefined : parseReference(options.reference);
    if (options.reference !== undefined && parsed === undefined) throw dockerError(400, 'invalid reference format');
    const whole = parsed === undefined ? undefined : wholeReference(parsed);
    const host = this.#intake();
    const name = whole === undefined ? undefined : engineReference(tenant.name, whole);
    const query = new URLSearchParams({ fromSrc: '-', message: options.message });
    if (name !== undefined) {
      query.set('repo', name.repository);
      query.set('tag', name.tag);
    }
    const answer = await host.client.stream(
      {
        method: 'POST',
        path: ['images', 'create'],
        query: { ...Object.fromEntries(query), changes: options.changes.length === 0 ? undefined : options.changes.join('\n') },
        headers: { 'content-type': 'application/x-tar' },
      },
      archive,
    );
    let imageId: string | undefined;
    for await (const line of jsonLines(answer)) {
      if (typeof line['error'] === 'string') throw new EngineError(500, line['error']);
      const found = typeof line['status'] === 'string' ? /sha256:[0-9a-f]{64}/.exec(line['status']) : null;
      imageId = found?.[0] ?? imageId;
    }
    if (imageId === undefined) throw dockerError(500, 'the engine did not say which image it made');
    await this.#hold(tenant.name, imageId, whole);
    return imageId;
  }

  async #hold(tenant: string, imageId: string, whole: string | undefined): Promise<void> {
    await putImage(this.#deps.sql, { tenant, imageId, reference: whole, nowMs: this.#deps.clock.nowMs() });
  }

  /** Takes an image that an engine made for the tenant, a build's, into its store; under names (whole references) or none. */
  async keep(tenant: string, host: Host, imageId: string, names: readonly string[]): Promise<void> {
    const engineNames = names.map((whole) => engineReference(tenant, whole));
    // A name keeps the engine's own pruning away from it.
    const nameless = { repository: `ecluse/${imageId.slice('sha256:'.length, 'sha256:'.length + 40)}`, tag: 'copy' };
    for (const { repository, tag } of engineNames.length === 0 ? [nameless] : engineNames) {
      await host.client.call({ method: 'POST', path: ['images', imageId, 'tag'], query: { repo: repository, tag } });
    }
    if (names.length === 0) await this.#hold(tenant, imageId, undefined);
    for (const whole of names) await this.#hold(tenant, imageId, whole);
  }

  /** `docker tag`. */
  async tag(tenant: string, source: string, target: string): Promise<void> {
    const image = await this.find(tenant, source);
    if (image === undefined) throw noSuchImage(source);
    const parsed = parseReference(target);
    if (parsed === undefined) throw dockerError(400, 'invalid reference format');
    const whole = wholeReference(parsed);
    const { repository, tag } = engineReference(tenant, whole);
    for (const host of this.#deps.hosts.values()) {
      if ((await inspectOn(host, image.imageId)) === undefined) continue;
      await host.client.call({ method: 'POST', path: ['images', image.imageId, 'tag'], query: { repo: repository, tag } });
    }
    await this.#hold(tenant, image.imageId, whole);
  }

  /**
   * `docker rmi`. `usersOf`: the tenant's containers of an image. Returns Docker's list of what was done. Forced, a name goes while
   * containers use its image; the image itself stays for them, without a name.
   */
  async remove(
    tenant: string,
    reference: string,
    options: { readonly force: boolean; readonly usersOf: (imageId: string) => readonly ContainerRow[] },
  ): Promise<readonly Readonly<Record<string, string>>[]> {
    const image = await this.find(tenant, reference);
    if (image === undefined) throw noSuchImage(reference);
    const parsed = parseReference(reference);
    const whole = parsed === undefined ? undefined : image.references.find((held) => held === wholeReference(parsed));
    const done: Record<string, string>[] = [];
    const [user] = options.usersOf(image.imageId);
    const isLast = whole === undefined || image.references.length <= 1;
    const conflict = removalConflict({ image, user, force: options.force, reference, isNamed: whole !== undefined });
    if (conflict !== undefined) throw dockerError(409, `conflict: ${conflict}`);
    const dropped = whole === undefined ? image.references : [whole];
    for (const held of dropped) {
      await dropReference(this.#deps.sql, tenant, held);
      await this.#untag(tenant, held);
      done.push({ Untagged: familiarReference(held) });
    }
    if (isLast && user === undefined) {
      await dropImage(this.#deps.sql, tenant, image.imageId);
      if ((await countHolders(this.#deps.sql, image.imageId)) === 0) await this.#forget(image.imageId);
      done.push({ Deleted: image.imageId });
    }
    return done;
  }

  async #untag(tenant: string, whole: string): Promise<void> {
    const { repository, tag } = engineReference(tenant, whole);
    for (const host of this.#deps.hosts.values()) await deleteOn(host, `${repository}:${tag}`, this.#deps.log);
  }

  async #forget(imageId: string): Promise<void> {
    for (const host of this.#deps.hosts.values()) await deleteOn(host, imageId, this.#deps.log);
  }

  /** Whether a host has an image already: placement prefers such a one. */
  async isOn(host: Host, imageId: string): Promise<boolean> {
    return (await inspectOn(host, imageId).catch(() => undefined)) !== undefined;
  }

  /** Brings an image to a host that lacks it, from one that has it. Two callers of the same pair wait for one transfer. */
  async ensureOn(target: Host, imageId: string): Promise<void> {
    await this.#locks.run(`${target.name} ${imageId}`, async () => {
      if ((await inspectOn(target, imageId)) !== undefined) return;
      for (const source of this.#deps.hosts.values()) {
        if (source === target || (await inspectOn(source, imageId)) === undefined) continue;
        const archive = await source.client.stream({ method: 'GET', path: ['images', imageId, 'get'] });
        const answer = await target.client.stream(
          { method: 'POST', path: ['images', 'load'], query: { quiet: true }, headers: { 'content-type': 'application/x-tar' } },
          archive.pipe(new PassThrough()),
        );
        for await (const line of jsonLines(answer))
          if (typeof line['error'] === 'string') throw new EngineError(500, line['error']);
        // A name keeps the engine's own pruning away from it.
        await target.client.call({
          method: 'POST',
          path: ['images', imageId, 'tag'],
          query: { repo: `ecluse/${imageId.slice('sha256:'.length, 'sha256:'.length + 40)}`, tag: 'copy' },
        });
        return;
      }
      throw new EcluseError({
        code: 'ECLUSE_IMAGE_LOST',
        source: 'upstream',
        status: 404,
        message: `no host has the image ${imageId} any more`,
        mend: 'load it again',
      });
    });
  }
}

/** Why an image or its name cannot go, in moby's words (`daemon/images/image_delete.go`); undefined: it can. */
function removalConflict(request: {
  readonly image: TenantImage;
  readonly user: ContainerRow | undefined;
  readonly force: boolean;
  readonly reference: string;
  readonly isNamed: boolean;
}): string | undefined {
  const { image, user, force, reference, isNamed } = request;
  const shortImage = image.imageId.slice('sha256:'.length, 'sha256:'.length + 12);
  const shortUser = user?.id.slice(0, 12) ?? '';
  if (isNamed) {
    if (user === undefined || force || image.references.length > 1) return undefined;
    return `unable to remove repository reference "${reference}" (must force) - container ${shortUser} is using its referenced image ${shortImage}`;
  }
  if (user !== undefined) {
    const how = user.state === 'running' || user.state === 'paused' ? 'running' : 'stopped';
    if (how === 'running')
      return `unable to delete ${shortImage} (cannot be forced) - image is being used by running container ${shortUser}`;
    return force
      ? undefined
      : `unable to delete ${shortImage} (must be forced) - image is being used by stopped container ${shortUser}`;
  }
  return image.references.length > 1 && !force
    ? `unable to delete ${shortImage} (must be forced) - image is referenced in multiple repositories`
    : undefined;
}

async function inspectOn(host: Host, name: string): Promise<EngineImage | undefined> {
  try {
    const { json } = await host.client.call({ method: 'GET', path: ['images', name, 'json'] });
    return imageSchema.parse(json);
  } catch (error) {
    if (error instanceof EngineError && error.status === 404) return undefined;
    throw error;
  }
}

async function deleteOn(host: Host, name: string, log: Log): Promise<void> {
  try {
    await host.client.call({ method: 'DELETE', path: ['images', name], query: { force: name.startsWith('ecluse/') } });
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    // 404: not on this host. 409: a container still uses it; the next removal of that image tries again.
    if (error.status !== 404) log.debug({ host: host.name, image: name, status: error.status }, 'image kept on host');
  }
}

/** The JSON lines of a progress stream; other lines are dropped. */
async function* jsonLines(stream: Readable): AsyncGenerator<JsonLine> {
  for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === '' || line.length > PROGRESS_LINE_CHARS_MAX) continue;
    const parsed = lineSchema.safeParse(tryJson(line));
    if (parsed.success) yield parsed.data; // An engine that writes something else here says nothing we could use.
  }
}

/** A failure in a progress stream, as Docker writes it. */
function errorLine(message: string): JsonLine {
  const told = withoutEnginePaths(message);
  return { errorDetail: { message: told }, error: told };
}

const progressSchema = z.object({
  status: z.string(),
  id: z.string().optional(),
  progress: z.string().optional(),
  progressDetail: z.object({ current: z.number().optional(), total: z.number().optional() }).optional(),
});

/** An engine's progress line, rebuilt. */
function progressLine(line: JsonLine): JsonLine {
  const parsed = progressSchema.safeParse(line);
  return parsed.success ? parsed.data : { status: '' };
}

function tryJson(text: string): unknown {
  try {
    const parsed: unknown = JSON.parse(text);
    return parsed;
  } catch {
    return undefined;
  }
}
