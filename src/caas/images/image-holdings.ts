/** Which images a tenant has, and under which names. */
import type { Clock } from '#clock';
import { KeyedLock } from '#lifecycle';
import { countHolders, dropDigest, dropImage, dropReference, listImages, putImage } from '#state/images.ts';
import type { ImageDigest, TenantImage } from '#state/images.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import { dockerError, noSuchImage } from '#caas/docker-api/docker-error.ts';
import { engineReference, tagOn } from './image-engines.ts';
import type { EngineHost, ImageEngines } from './image-engines.ts';
import { parseNamed } from './image-reference.ts';

/** Names of all images of a tenant, by tag and by digest. */
const NAMES_MAX = 2000;

export interface HoldingsDeps {
  readonly clock: Clock;
  readonly sql: Sql;
}

/** What a reference means among images; undefined: none of them. Docker's order: a name, then an id or the beginning of one. Pure. */
export function findImage(images: readonly TenantImage[], reference: string): TenantImage | undefined {
  const hex = reference.replace(/^sha256:/, '');
  const parsed = /^[0-9a-f]{64}$/.test(hex) ? undefined : parseNamed(reference);
  if (parsed?.kind === 'named') {
    const { repository, tag, digest } = parsed.name;
    const byName = images.find((image) =>
      digest === ''
        ? image.references.includes(`${repository}:${tag === '' ? 'latest' : tag}`)
        : image.digests.includes(`${repository}@${digest}`),
    );
    if (byName !== undefined) return byName;
  }
  if (!/^[0-9a-f]{1,64}$/.test(hex)) return undefined;
  const byId = images.filter((image) => image.imageId.startsWith(`sha256:${hex}`));
  return byId.length === 1 ? byId[0] : undefined;
}

/** The same; throws Docker's errors for what is none and for what is not there. */
export function requireImage(images: readonly TenantImage[], reference: string): TenantImage {
  const image = findImage(images, reference);
  if (image !== undefined) return image;
  const parsed = /^(?:sha256:)?[0-9a-f]{64}$/.test(reference) ? undefined : parseNamed(reference);
  throw parsed?.kind === 'invalid' ? dockerError(400, parsed.why) : noSuchImage(reference);
}

export class ImageHoldings {
  readonly #deps: HoldingsDeps;
  readonly #engines: ImageEngines;
  /** By image: that somebody takes it, and that the last one who had it drops it. */
  readonly #locks = new KeyedLock();

  constructor(deps: HoldingsDeps, engines: ImageEngines) {
    this.#deps = deps;
    this.#engines = engines;
  }

  async list(tenant: string): Promise<readonly TenantImage[]> {
    return await listImages(this.#deps.sql, tenant);
  }

  async find(tenant: string, reference: string): Promise<TenantImage | undefined> {
    return findImage(await this.list(tenant), reference);
  }

  /** Throws where the tenant may have no more images; returns for how many there is room. */
  async checkQuota(tenant: Tenant): Promise<number> {
    const held = (await this.list(tenant.name)).length;
    const { imagesMax } = tenant.quota;
    if (held < imagesMax) return imagesMax - held;
    throw dockerError(403, `ecluse: tenant ${tenant.name} holds ${String(held)} images, its quota is ${String(imagesMax)}`);
  }

  /** Gives a tenant an image that a host has (it was made there just now), under which names. */
  async hold(
    tenant: string,
    imageId: string,
    host: EngineHost,
    names: { readonly reference?: string | undefined; readonly digest?: ImageDigest | undefined } = {},
  ): Promise<void> {
    await this.#locks.run(imageId, async () => {
      if (!(await this.#engines.learn(host, imageId))) {
        throw dockerError(500, 'ecluse: the image was removed while it was being made; do it again');
      }
      await tagOn(host, imageId, engineReference(imageId));
      await this.#put(tenant, imageId, names);
    });
  }

  /** A further name for an image that the tenant has. */
  async name(
    tenant: string,
    imageId: string,
    names: { readonly reference?: string; readonly digest?: ImageDigest },
  ): Promise<void> {
    await this.#locks.run(imageId, async () => {
      // It may have been dropped since it was found; engines forget it then.
      if (!(await this.list(tenant)).some((image) => image.imageId === imageId)) throw noSuchImage(imageId);
      await this.#put(tenant, imageId, names);
    });
  }

  async #put(
    tenant: string,
    imageId: string,
    { reference, digest }: { readonly reference?: string | undefined; readonly digest?: ImageDigest | undefined },
  ): Promise<void> {
    if (reference !== undefined || digest !== undefined) await this.#checkNames(tenant, reference);
    await putImage(this.#deps.sql, { tenant, imageId, reference, digest, nowMs: this.#deps.clock.nowMs() });
  }

  /** Every look for an image reads the tenant's names. */
  async #checkNames(tenant: string, reference: string | undefined): Promise<void> {
    const names = (await this.list(tenant)).flatMap(({ references, digests }) => [...references, ...digests]);
    if (names.length < NAMES_MAX || (reference !== undefined && names.includes(reference))) return;
    throw dockerError(403, `ecluse: tenant ${tenant} has ${String(names.length)} names of images; remove some with docker rmi`);
  }

  /** Takes a name from an image: `repository:tag` or `repository@digest`. */
  async unname(tenant: string, whole: string): Promise<void> {
    const at = whole.indexOf('@');
    await (at === -1
      ? dropReference(this.#deps.sql, tenant, whole)
      : dropDigest(this.#deps.sql, tenant, { repository: whole.slice(0, at), digest: whole.slice(at + 1) }));
  }

  /** Takes an image from a tenant; engines forget it when nobody else has it. */
  async drop(tenant: string, imageId: string): Promise<void> {
    await this.#locks.run(imageId, async () => {
      await dropImage(this.#deps.sql, tenant, imageId);
      if ((await countHolders(this.#deps.sql, imageId)) === 0) await this.#engines.forget(imageId);
    });
  }

  /** Does `work` while nobody takes or drops an image, if nobody holds it. */
  async whileUnheld(imageId: string, work: () => Promise<void>): Promise<void> {
    await this.#locks.run(imageId, async () => {
      if ((await countHolders(this.#deps.sql, imageId)) === 0) await work();
    });
  }
}
