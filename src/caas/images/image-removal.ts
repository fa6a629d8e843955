/** `docker rmi` and `docker image prune`, on what the tenant has. The order of decisions and the words are moby's (`daemon/images/image_delete.go`). */
import type { ContainerRow } from '#state/containers.ts';
import type { TenantImage } from '#state/images.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import type { ImageEngines } from './image-engines.ts';
import type { ImageEvents } from './image-events.ts';
import { requireImage } from './image-holdings.ts';
import type { ImageHoldings } from './image-holdings.ts';
import { layersToDelete } from './image-layers.ts';
import type { LayerFacts } from './image-layers.ts';
import { familiarReference, parseNamed, splitWhole } from './image-reference.ts';

export interface RemovalDeps {
  readonly engines: ImageEngines;
  readonly holdings: ImageHoldings;
  readonly events: ImageEvents;
}

/** The tenant's containers of an image. */
export type UsersOf = (imageId: string) => readonly ContainerRow[];

export interface RemovalRequest {
  readonly image: TenantImage;
  /** As it was written. */
  readonly reference: string;
  readonly users: readonly ContainerRow[];
  readonly force: boolean;
}

export type RemovalPlan =
  | { readonly kind: 'conflict'; readonly why: string }
  | { readonly kind: 'remove'; /** Whole names that go. */ readonly names: readonly string[]; readonly isDeleted: boolean };

export type RemovalLine = { readonly Untagged: string } | { readonly Deleted: string };

export interface RemovalResult {
  readonly lines: readonly RemovalLine[];
  readonly bytes: number;
}

/** One tag, with the digest of its repository or without; or digests only, of one repository. */
function isSingleReference({ references, digests }: TenantImage): boolean {
  if (references.length + digests.length <= 1) return true;
  if (references.length > 1) return false;
  const repositories = new Set(digests.map((whole) => whole.slice(0, whole.indexOf('@'))));
  const [own] = references;
  return repositories.size === 1 && (own === undefined || repositories.has(splitWhole(own).repository));
}

/** Whether the reference is the image's id, or the beginning of it. */
function isIdOf(reference: string, imageId: string): boolean {
  return imageId.startsWith(reference) || imageId.slice('sha256:'.length).startsWith(reference);
}

function shortId(imageId: string): string {
  return imageId.replace(/^sha256:/, '').slice(0, 12);
}

/** Why an image cannot be deleted; undefined: it can. `isForced`: what force overrides is left out. */
function deletionConflict({ image, users }: RemovalRequest, isForced: boolean, referencesLeft: number): string | undefined {
  const id = shortId(image.imageId);
  const running = users.find(({ state }) => state === 'running' || state === 'paused' || state === 'restarting');
  if (running !== undefined) {
    return `conflict: unable to delete ${id} (cannot be forced) - image is being used by running container ${running.id.slice(0, 12)}`;
  }
  if (isForced) return undefined;
  if (referencesLeft > 1)
    return `conflict: unable to delete ${id} (must be forced) - image is referenced in multiple repositories`;
  const [stopped] = users;
  return stopped === undefined
    ? undefined
    : `conflict: unable to delete ${id} (must be forced) - image is being used by stopped container ${stopped.id.slice(0, 12)}`;
}

/** The names that go when `whole` goes: digests of a repository go with its last tag. */
function namesWith({ references, digests }: TenantImage, whole: string): readonly string[] {
  if (whole.includes('@')) return [whole];
  const { repository } = splitWhole(whole);
  const isLast = !references.some((other) => other !== whole && splitWhole(other).repository === repository);
  return isLast ? [whole, ...digests.filter((one) => one.startsWith(`${repository}@`))] : [whole];
}

/** What `docker rmi` does. Pure. */
export function planRemoval(request: RemovalRequest): RemovalPlan {
  const { image, reference, users, force } = request;
  const all = [...image.references, ...image.digests];
  if (isIdOf(reference, image.imageId)) {
    // By its id all names go; several ones by force only.
    const why = deletionConflict(request, force, isSingleReference(image) ? 0 : all.length);
    return why === undefined ? { kind: 'remove', names: all, isDeleted: true } : { kind: 'conflict', why };
  }
  const [user] = users;
  if (!force && user !== undefined && isSingleReference(image)) {
    const why = `conflict: unable to remove repository reference "${reference}" (must force) - container ${user.id.slice(0, 12)} is using its referenced image ${shortId(image.imageId)}`;
    return { kind: 'conflict', why };
  }
  const names = namesWith(image, wholeNameOf(reference));
  const isLast = names.length === all.length;
  // A name goes while containers use its image; the image itself stays for them, without a name.
  return { kind: 'remove', names, isDeleted: isLast && deletionConflict(request, force, 0) === undefined };
}

function wholeNameOf(reference: string): string {
  const parsed = parseNamed(reference);
  if (parsed.kind === 'invalid') throw dockerError(400, parsed.why);
  const { repository, tag, digest } = parsed.name;
  return digest === '' ? `${repository}:${tag === '' ? 'latest' : tag}` : `${repository}@${digest}`;
}

export class ImageRemoval {
  readonly #deps: RemovalDeps;
  readonly #pruning = new Set<string>();

  constructor(deps: RemovalDeps) {
    this.#deps = deps;
  }

  async remove(
    tenant: string,
    reference: string,
    options: { readonly force: boolean; readonly usersOf: UsersOf },
  ): Promise<RemovalResult> {
    const held = await this.#deps.holdings.list(tenant);
    const image = requireImage(held, reference);
    const users = options.usersOf(image.imageId);
    const plan = planRemoval({ image, reference, users, force: options.force });
    if (plan.kind === 'conflict') throw dockerError(409, plan.why);
    return await this.#carryOut(tenant, image, { ...plan, isUsed: users.length > 0 });
  }

  async #carryOut(
    tenant: string,
    image: TenantImage,
    { names, isDeleted, isUsed }: { readonly names: readonly string[]; readonly isDeleted: boolean; readonly isUsed: boolean },
  ): Promise<RemovalResult> {
    const { holdings, events } = this.#deps;
    const { imageId } = image;
    const lines: RemovalLine[] = [];
    // While engines still have it: what goes with it is told from what they know.
    const layers = isDeleted ? await this.#layersOf(tenant, imageId) : undefined;
    for (const name of names) {
      await holdings.unname(tenant, name);
      await events.publish(tenant, 'untag', imageId);
      lines.push({ Untagged: familiarReference(name) });
    }
    if (layers === undefined) return { lines, bytes: 0 };
    await events.publish(tenant, 'delete', imageId);
    await holdings.drop(tenant, imageId);
    // A stopped container keeps the layers of an image that was forced away.
    if (isUsed) return { lines: [...lines, { Deleted: imageId }], bytes: 0 };
    return {
      lines: [...lines, { Deleted: imageId }, ...layers.chainIds.map((Deleted) => ({ Deleted }))],
      bytes: layers.bytes,
    };
  }

  async #layersOf(tenant: string, imageId: string): Promise<ReturnType<typeof layersToDelete>> {
    const others = (await this.#deps.holdings.list(tenant)).filter((image) => image.imageId !== imageId);
    return layersToDelete(
      await this.layers(imageId),
      await Promise.all(others.map(async (other) => await this.layers(other.imageId))),
    );
  }

  /** What engines know of an image's layers. An image that no host has counts nothing. */
  async layers(imageId: string): Promise<LayerFacts> {
    const known = await this.#deps.engines.inspect(imageId).catch(() => undefined);
    const history = known === undefined ? undefined : await this.#deps.engines.history(imageId).catch(() => undefined);
    return {
      diffIds: known?.RootFS?.Layers ?? [],
      size: known?.Size ?? 0,
      historySizes: (history ?? []).map(({ Size }) => Size).toReversed(),
    };
  }

  /** `docker image prune`: `isWanted` is what the filters say. */
  async prune(
    tenant: string,
    options: {
      readonly danglingOnly: boolean;
      readonly usersOf: UsersOf;
      readonly isWanted: (image: TenantImage) => Promise<boolean>;
    },
  ): Promise<RemovalResult> {
    if (this.#pruning.has(tenant)) throw dockerError(409, 'a prune operation is already running');
    this.#pruning.add(tenant);
    try {
      const lines: RemovalLine[] = [];
      let bytes = 0;
      for (const image of await this.#deps.holdings.list(tenant)) {
        const isInReach = options.danglingOnly ? image.references.length === 0 : true;
        if (!isInReach || options.usersOf(image.imageId).length > 0 || !(await options.isWanted(image))) continue;
        const names = [...image.references, ...image.digests];
        const result = await this.#carryOut(tenant, image, { names, isDeleted: true, isUsed: false });
        lines.push(...result.lines);
        bytes += result.bytes;
      }
      this.#deps.events.prune(tenant, bytes);
      return { lines, bytes };
    } finally {
      this.#pruning.delete(tenant);
    }
  }
}
