/** Tenants' images: references of their own over content that engines share, and the way of an image to the host that needs it. */
import type { Clock } from '#clock';
import type { Log } from '#log';
import type { TenantImage } from '#state/images.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import { dockerError, noSuchImage } from '#caas/docker-api/docker-error.ts';
import type { EngineImage } from '#caas/engine/engine-answers.ts';
import type { ProgressSink } from '#caas/engine/engine-progress.ts';
import type { Events } from '#caas/events.ts';
import type { Host } from '#caas/host.ts';
import { ImageCollector } from './image-collector.ts';
import { ImageEngines, inspectOn } from './image-engines.ts';
import type { EngineHistory } from './image-engines.ts';
import { ImageEvents } from './image-events.ts';
import { ImageHoldings, requireImage } from './image-holdings.ts';
import { familiarReference, parseNamed } from './image-reference.ts';
import { ImageRegistry } from './image-registry.ts';
import type { RegistryAccess, RegistryParts } from './image-registry.ts';
import { ImageRemoval } from './image-removal.ts';
import { ImageTransfer } from './image-transfer.ts';
import { RegistryQueries } from '#caas/registry/registry-queries.ts';

export interface ImagesDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  /** In order of preference. */
  readonly hosts: ReadonlyMap<string, Host>;
  readonly events: Events;
  readonly registry: RegistryParts;
}

export class Images {
  readonly #engines: ImageEngines;
  readonly #holdings: ImageHoldings;
  readonly #events: ImageEvents;
  readonly #registry: ImageRegistry;
  readonly transfer: ImageTransfer;
  readonly removal: ImageRemoval;
  readonly queries: RegistryQueries;
  readonly collector: ImageCollector;

  constructor(deps: ImagesDeps) {
    const engines = new ImageEngines(deps.log, deps.hosts);
    const holdings = new ImageHoldings(deps, engines);
    const events = new ImageEvents(deps.events, engines);
    this.#engines = engines;
    this.#holdings = holdings;
    this.#events = events;
    this.transfer = new ImageTransfer({ engines, holdings, events });
    this.removal = new ImageRemoval({ engines, holdings, events });
    this.queries = new RegistryQueries(deps.registry.policy);
    this.collector = new ImageCollector({ ...deps, engines, holdings });
    this.#registry = new ImageRegistry({ ...deps.registry, engines, holdings, events, transfer: this.transfer });
  }

  async list(tenant: string): Promise<readonly TenantImage[]> {
    return await this.#holdings.list(tenant);
  }

  /** The tenant's image that `reference` (name, id or id prefix) means, or undefined. */
  async find(tenant: string, reference: string): Promise<TenantImage | undefined> {
    return await this.#holdings.find(tenant, reference);
  }

  /** The same; throws Docker's error where there is none. */
  async require(tenant: string, reference: string): Promise<TenantImage> {
    return requireImage(await this.list(tenant), reference);
  }

  /** What an engine knows of an image; undefined where no host has it. */
  async inspect(imageId: string): Promise<EngineImage | undefined> {
    return await this.#engines.inspect(imageId);
  }

  async history(imageId: string): Promise<EngineHistory | undefined> {
    return await this.#engines.history(imageId);
  }

  /** Throws where the tenant may have no more images. */
  async checkQuota(tenant: Tenant): Promise<void> {
    await this.#holdings.checkQuota(tenant);
  }

  /** Gives a tenant an image that an engine has (committed), under a whole reference or none. */
  async hold(tenant: string, imageId: string, whole: string | undefined): Promise<void> {
    const host = await this.#engines.hostWith(imageId);
    if (host === undefined) throw noSuchImage(imageId);
    await this.#holdings.hold(tenant, imageId, host, { reference: whole });
  }

  /** Takes what a build made into the tenant's store; under names (whole references) or none. */
  async keep(tenant: string, imageId: string, names: readonly string[]): Promise<void> {
    if (names.length === 0) await this.hold(tenant, imageId, undefined);
    for (const whole of names) {
      await this.hold(tenant, imageId, whole);
      await this.#events.publish(tenant, 'tag', imageId, familiarReference(whole));
    }
  }

  /** While held, engines keep what is being made though nobody holds it yet. */
  protect(): Disposable {
    return this.#engines.protect();
  }

  /** Whether a host has an image already: placement prefers such a one. */
  async isOn(host: Host, imageId: string): Promise<boolean> {
    return (await inspectOn(host, imageId).catch(() => undefined)) !== undefined;
  }

  /** Brings an image to a host that lacks it. Two callers of the same pair wait for one transfer. */
  async ensureOn(target: Host, imageId: string): Promise<void> {
    await this.transfer.ensureOn(target, imageId);
  }

  /** `docker pull`. Afterwards `find` has the image. */
  async pull(tenant: Tenant, reference: string, access: RegistryAccess, emit: ProgressSink): Promise<void> {
    await this.#registry.pull(tenant, reference, access, emit);
  }

  async push(tenant: Tenant, reference: string, access: RegistryAccess, emit: ProgressSink): Promise<void> {
    await this.#registry.push(tenant, reference, access, emit);
  }

  /** `docker tag`: a name in the store; engines know content only. */
  async tag(tenant: string, source: string, target: string): Promise<void> {
    const image = await this.require(tenant, source);
    const parsed = parseNamed(target);
    if (parsed.kind === 'invalid') throw dockerError(400, parsed.why);
    const { repository, tag, digest } = parsed.name;
    if (digest !== '') throw dockerError(400, 'refusing to create a tag with a digest reference');
    if (repository === 'docker.io/library/sha256') {
      throw dockerError(400, 'refusing to create an ambiguous tag using digest algorithm as name');
    }
    const whole = `${repository}:${tag === '' ? 'latest' : tag}`;
    await this.#holdings.name(tenant, image.imageId, { reference: whole });
    await this.#events.publish(tenant, 'tag', image.imageId, familiarReference(whole));
  }
}
