/**
 * `docker build` with the engine's classic builder, whose steps run under the engine's default runtime: in a sandbox.
 *
 *   context ──▶ checked, Dockerfile rewritten at its end ──▶ engine ──▶ output, taken back to the tenant's words ──▶ client
 *
 * What a build uses is metered like a container of the name `build`. What it leaves on the engine is taken away at its end, however it ends;
 * what a crash left, at the next start (`build-leftovers.ts`). The engine may reuse steps of the tenant's own images only: it takes a cached
 * step where that is an ancestor of an image that it is told to look at (moby `image/cache/cache.go`), and it is always told.
 */
import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import type { Clock } from '#clock';
import type { Log } from '#log';
import { reasonOf } from '#errors';
import type { TenantImage } from '#state/images.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import { SPEC_LIMITS } from '#caas/spec/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import type { Query } from '#caas/engine/engine-client.ts';
import type { Host } from '#caas/host.ts';
import { familiarReference, parseNamed, wholeReference } from '#caas/images/image-reference.ts';
import type { Images } from '#caas/images/images.ts';
import type { RegistryAuth } from '#caas/registry/registry-auth.ts';
import type { Meter } from '#caas/meter.ts';
import { CONTEXT_LIMITS, ENGINE_DOCKERFILE, rewriteContext } from './build-context.ts';
import { buildName, clearBuild, removeBuildCgroup } from './build-leftovers.ts';
import type { Ending } from './build-leftovers.ts';
import { ENGINE_LINE_CHARS_MAX, failureLine, isRemoval, OriginalWords, parseEngineLine } from './build-output.ts';
import type { BuildLine, EngineLine } from './build-output.ts';
import { StepImages } from './step-images.ts';
import type { BuildOptions, RegistryLogins } from './build-query.ts';
import { parseDockerfile } from './dockerfile-lines.ts';
import { rewriteDockerfile } from './dockerfile-rewrite.ts';
import type { BaseImage, RewrittenDockerfile } from './dockerfile-rewrite.ts';
import { boundedLines } from './engine-lines.ts';
import { bringFile } from './remote-file.ts';

export type Emit = (line: BuildLine) => Promise<void>;

export interface BuildsDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly images: Images;
  readonly containers: Containers;
  readonly meter: Meter;
}

export interface BuildRequest {
  readonly tenant: Tenant;
  readonly options: BuildOptions;
  readonly logins: RegistryLogins;
  readonly context: Readable;
  readonly signal: AbortSignal;
  /** Clients of API 1.30 and later are told image ids as data. */
  readonly wantsAux: boolean;
  readonly emit: Emit;
}

/** Each holds a connection, a temporary directory of the engine and the CPU of a container. */
const BUILDS_PER_TENANT_MAX = 2;
const BUILDS_MAX = 20;
const TIME_LIMIT_MS = 3_600_000;
/** Compilers and package managers need more than a service does. */
const MEMORY_BYTES_DEFAULT = 1024 * 1024 * 1024;
/** A sandbox needs room for its own kernel. */
const MEMORY_BYTES_MIN = 64 * 1024 * 1024;
/** The engine looks through each for every step. */
const CACHE_SOURCES_MAX = 50;
/** Output that `--quiet` holds back for the case of a failure. */
const QUIET_CHARS_MAX = 1024 * 1024;

interface Running {
  readonly request: BuildRequest;
  readonly host: Host;
  readonly cgroup: string;
  readonly memoryBytes: number;
  readonly signal: AbortSignal;
  readonly steps: StepImages;
  readonly borrowed: string[];
  /** What `--quiet` holds back. */
  readonly held: string[];
  /** What of the engine's output the tenant was told before. */
  announced: string;
  /** The engine has, or is about to have, all of the context: before, it does nothing. */
  hasContext: boolean;
  /** The engine said that it has given up. */
  hasFailed: boolean;
}

export class Builds {
  readonly #deps: BuildsDeps;
  /** Memory of the builds under way, by tenant. */
  readonly #running = new Map<string, number[]>();

  constructor(deps: BuildsDeps) {
    this.#deps = deps;
  }

  /** Builds, telling the client through `emit`. Throws what went wrong before or instead of the engine's own words. */
  async run(request: BuildRequest): Promise<void> {
    const { tenant, options } = request;
    await this.#deps.images.checkQuota(tenant);
    const rows = await this.#deps.containers.listOf(tenant.name);
    const usedBytes = rows.reduce((sum, row) => sum + row.memoryBytes, 0);
    const memoryBytes = this.#take(tenant, options.memoryBytes, usedBytes);
    let isLeft = false;
    const leave = (): void => {
      if (!isLeft) this.#giveBack(tenant.name, memoryBytes);
      isLeft = true;
    };
    // Steps' images have no holder until the build is done.
    const kept = this.#deps.images.protect();
    try {
      await this.#runOn(await this.#host(), { request, memoryBytes, leave });
    } finally {
      kept[Symbol.dispose]();
      leave();
    }
  }

  /** The first that answers, where images are taken in too: what the tenant loaded, and the steps that it can use again, are there. */
  async #host(): Promise<Host> {
    for (const host of this.#deps.hosts.values()) if (await host.client.isAlive()) return host;
    throw dockerError(503, 'ecluse: no host answers');
  }

  /** Takes a place among the builds. Returns the memory that each step gets. In one go: two requests must not both take the last place. */
  #take(tenant: Tenant, wanted: number, usedBytes: number): number {
    const mine = this.#running.get(tenant.name) ?? [];
    if (mine.length >= BUILDS_PER_TENANT_MAX) {
      throw dockerError(429, `ecluse: tenant ${tenant.name} runs ${String(mine.length)} builds; wait until one has ended`);
    }
    const all = [...this.#running.values()].reduce((sum, builds) => sum + builds.length, 0);
    if (all >= BUILDS_MAX) throw dockerError(503, 'ecluse: too many builds run on this node; try again later');
    if (wanted !== 0 && wanted < MEMORY_BYTES_MIN) {
      throw dockerError(400, 'Minimum memory limit allowed is 64MB: a sandbox needs room for its own kernel');
    }
    const free = tenant.quota.memoryBytesMax - mine.reduce((sum, bytes) => sum + bytes, usedBytes);
    const memoryBytes = wanted === 0 ? Math.min(MEMORY_BYTES_DEFAULT, free) : wanted;
    if (memoryBytes > free || memoryBytes < MEMORY_BYTES_MIN) {
      throw dockerError(
        403,
        `ecluse: tenant ${tenant.name} has ${String(Math.max(0, free))} bytes of its memory quota left, too few for this build; remove containers or set a smaller --memory`,
      );
    }
    this.#running.set(tenant.name, [...mine, memoryBytes]);
    return memoryBytes;
  }

  #giveBack(tenant: string, memoryBytes: number): void {
    const left = [...(this.#running.get(tenant) ?? [])];
    left.splice(left.indexOf(memoryBytes), 1);
    if (left.length === 0) this.#running.delete(tenant);
    else this.#running.set(tenant, left);
  }

  async #runOn(
    host: Host,
    build: { readonly request: BuildRequest; readonly memoryBytes: number; readonly leave: () => void },
  ): Promise<void> {
    const { meter, log } = this.#deps;
    const { request, memoryBytes, leave } = build;
    const { tenant } = request;
    const name = buildName(randomBytes(8).toString('hex'));
    const cgroup = host.cgroupOf(tenant.name, name);
    const timeLimit = AbortSignal.timeout(TIME_LIMIT_MS);
    const signal = AbortSignal.any([request.signal, timeLimit]);
    const running: Running = {
      request,
      host,
      cgroup,
      memoryBytes,
      signal,
      steps: new StepImages(),
      borrowed: [],
      held: [],
      announced: '',
      hasContext: false,
      hasFailed: false,
    };
    // The builder cannot be told a limit of processes for its containers.
    await host.cgroups.limitPids(cgroup, SPEC_LIMITS.pidsMax);
    const base = { container: name, incarnation: 1, tenant: tenant.name, host: host.name, name: 'build', cgroup };
    await meter.openIncarnation(await meter.startingPoint(base));
    let ending: Ending = 'cut';
    try {
      ending = (await this.#build(running)) ? 'succeeded' : 'failed';
    } catch (error) {
      if (!running.hasContext || running.hasFailed) ending = 'failed';
      if (timeLimit.aborted) throw dockerError(500, `ecluse: the build took more than ${String(TIME_LIMIT_MS / 60_000)} minutes`);
      throw error;
    } finally {
      // What was cut off may go on for a moment: it keeps its place until it is gone.
      if (ending !== 'cut') leave();
      await clearBuild(this.#deps, host, {
        cgroup,
        traces: { made: running.steps.made, borrowed: running.borrowed },
        ending,
      }).catch((error: unknown) => {
        log.warn({ host: host.name, build: name, reason: reasonOf(error) }, 'a build could not be cleared away');
      });
      await meter.close(name);
      await removeBuildCgroup(this.#deps, host, cgroup);
    }
  }

  /** True where an image came of it. */
  async #build(running: Running): Promise<boolean> {
    const { request, host, signal } = running;
    const { options } = request;
    const query = await this.#engineQuery(running);
    const done = Promise.withResolvers<RewrittenDockerfile>();
    done.promise.catch(() => undefined); // Who reads the context hears of it.
    let words = new OriginalWords({ originals: new Map(), names: new Map() }, options.dockerfile);
    const context = rewriteContext(request.context, {
      dockerfile: options.dockerfile,
      limits: CONTEXT_LIMITS,
      rewrite: async (dockerfile, name) => {
        const rewritten = await this.#rewrite(running, dockerfile, name);
        words = new OriginalWords(rewritten, name);
        done.resolve(rewritten);
        running.hasContext = true;
        return rewritten.text;
      },
    });
    const headers = { 'content-type': 'application/x-tar' };
    let stages: readonly string[];
    try {
      const answer = await host.client.stream({ method: 'POST', path: ['build'], query, headers, signal }, context);
      stages = await this.#follow(running, answer, (line) => told(line, words));
    } finally {
      context.destroy(); // Where the engine did not want all of it.
    }
    if (running.hasFailed) return false;
    const { isBase } = await done.promise;
    const imageId = stages.at(-1);
    if (imageId === undefined || stages.length !== isBase.length)
      throw dockerError(500, 'the engine ended the build without an image');
    await this.#keep(
      running,
      imageId,
      stages.filter((_stage, index) => isBase[index] === false),
    );
    return true;
  }

  async #rewrite(running: Running, bytes: Buffer, name: string): Promise<RewrittenDockerfile> {
    const { request, host, signal } = running;
    const { options, emit } = request;
    return await rewriteDockerfile(parseDockerfile(bytes, name), {
      arguments: options.arguments,
      target: options.target,
      labels: Object.keys(options.labels).length,
      imageOf: async (reference, need) => await this.#imageOf(running, reference, need),
      fetch: async (url) => {
        await emit({ status: `Downloading ${url}` });
        const file = await bringFile(host, url, { signal });
        running.borrowed.push(file.imageId);
        return file;
      },
    });
  }

  async #imageOf(
    running: Running,
    reference: string,
    need: { readonly platform: string; readonly step: string },
  ): Promise<BaseImage> {
    const { images } = this.#deps;
    const { tenant, options } = running.request;
    let image = await images.find(tenant.name, reference);
    // What was found by its id cannot be pulled.
    const isNamed = image !== undefined && isNameOf(image, reference);
    if (image === undefined || (options.pull && isNamed)) {
      await this.#pull(running, reference, need);
      image = await images.find(tenant.name, reference);
    }
    const known = image === undefined ? undefined : await images.inspect(image.imageId);
    if (image === undefined || known === undefined) throw dockerError(404, `No such image: ${reference.slice(0, 500)}`);
    await images.ensureOn(running.host, image.imageId);
    return { imageId: image.imageId, environment: known.Config?.Env ?? [], triggers: known.Config?.OnBuild ?? [] };
  }

  /** Docker pulls when it comes to the instruction; the engine comes to it later. */
  async #pull(running: Running, reference: string, need: { readonly platform: string; readonly step: string }): Promise<void> {
    const { tenant, options, logins, emit } = running.request;
    const isFirst = !options.isQuiet && need.step.startsWith('Step 1/');
    if (isFirst) {
      running.announced = need.step;
      await emit({ stream: need.step });
    }
    const platform = need.platform === '' ? options.platform : need.platform;
    const access = {
      auth: loginFor(logins, reference),
      platform: platform === '' ? undefined : platform,
      signal: running.signal,
    };
    try {
      await this.#deps.images.pull(tenant, withDefaultTag(reference), access, emit);
    } catch (error) {
      if (!isFirst) await emit({ stream: need.step }); // The engine never gets to announce it.
      throw error;
    }
  }

  /** The newest images of the tenant's, or those that it named. */
  async #cacheSources({ tenant, options }: BuildRequest): Promise<readonly string[]> {
    const { images } = this.#deps;
    const { cacheFrom } = options;
    if (cacheFrom === undefined || cacheFrom.length === 0) {
      const newest = (await images.list(tenant.name)).toSorted((one, other) => other.createdMs - one.createdMs);
      return newest.slice(0, CACHE_SOURCES_MAX).map(({ imageId }) => imageId);
    }
    // One that the tenant does not have is skipped, as Docker does.
    const found = await Promise.all(
      cacheFrom.slice(0, CACHE_SOURCES_MAX).map(async (name) => await images.find(tenant.name, name)),
    );
    return found.flatMap((image) => (image === undefined ? [] : [image.imageId]));
  }

  async #engineQuery(running: Running): Promise<Query> {
    const { request, host, memoryBytes } = running;
    const { options, tenant } = request;
    const sources = options.noCache ? [] : await this.#cacheSources(request);
    const cpuMax = tenant.quota.cpuMilliMax;
    const period = options.cpuPeriod === 0 ? 100_000 : options.cpuPeriod;
    const quotaMax = cpuMax === 0 ? options.cpuQuota : Math.floor((period * cpuMax) / 1000);
    const cpuQuota = options.cpuQuota === 0 ? quotaMax : Math.min(options.cpuQuota, quotaMax);
    return {
      dockerfile: ENGINE_DOCKERFILE,
      version: '1',
      rm: true,
      forcerm: true,
      // Without a source the engine would take any tenant's steps.
      nocache: sources.length === 0,
      cachefrom: JSON.stringify(sources),
      networkmode: options.network === 'none' ? 'none' : (await host.ensureTenantNetwork(tenant.name)).name,
      cgroupparent: running.cgroup,
      memory: memoryBytes,
      memswap: memoryBytes,
      cpushares: options.cpuShares,
      cpuperiod: cpuQuota === 0 ? options.cpuPeriod : period,
      cpuquota: cpuQuota,
      shmsize: options.shmBytes,
      ulimits: JSON.stringify(options.ulimits),
      extrahosts: options.extraHosts,
      platform: options.platform === '' ? undefined : options.platform,
      buildargs: JSON.stringify(Object.fromEntries(options.arguments)),
      labels: JSON.stringify(options.labels),
    };
  }

  /** Passes the output on. Returns the images of the stages, in their order. */
  async #follow(running: Running, answer: Readable, tell: (line: EngineLine) => BuildLine): Promise<readonly string[]> {
    const { request, held } = running;
    const { removal } = request.options;
    const stages: string[] = [];
    let removed: EngineLine | undefined; // What follows says whether the step succeeded.
    for await (const text of boundedLines(answer, ENGINE_LINE_CHARS_MAX)) {
      const line = parseEngineLine(text);
      if (line === undefined) continue;
      if (line.kind === 'failure') {
        running.hasFailed = true;
        if (removed !== undefined && removal === 'always') await this.#say(running, removed, tell(removed));
        for (const before of held.splice(0)) await request.emit({ stream: before });
        await request.emit(tell(line));
        return stages; // It is the last word.
      }
      if (removed !== undefined && removal !== 'never') await this.#say(running, removed, tell(removed));
      removed = isRemoval(line) ? line : undefined;
      if (removed !== undefined) continue;
      if (line.kind === 'output') running.steps.read(line.text);
      else stages.push(line.imageId);
      await this.#say(running, line, tell(line));
    }
    return stages;
  }

  /** Tells the client what it wants to hear, or keeps it for the case of a failure. */
  async #say(running: Running, line: EngineLine, toTell: BuildLine): Promise<void> {
    const { request, held } = running;
    const { isQuiet } = request.options;
    const said = toTell['stream'];
    if (typeof said === 'string' && running.announced !== '') {
      const isSame = running.announced.startsWith(said);
      running.announced = isSame ? running.announced.slice(said.length) : '';
      if (isSame) return;
    }
    if (line.kind === 'stage' && (isQuiet || !request.wantsAux)) return;
    if (!isQuiet) {
      await request.emit(toTell);
      return;
    }
    held.push(String(toTell['stream']));
    while (held.reduce((sum, text) => sum + text.length, 0) > QUIET_CHARS_MAX) held.shift();
  }

  /** Takes what was made into the tenant's store. Images of stages stay for the next build, as Docker keeps them. */
  async #keep(running: Running, imageId: string, stages: readonly string[]): Promise<void> {
    const { images } = this.#deps;
    const { tenant, options, emit } = running.request;
    await images.keep(tenant.name, imageId, options.tags);
    const room = tenant.quota.imagesMax - (await images.list(tenant.name)).length;
    const others = [...new Set(stages)].filter((stage) => stage !== imageId);
    for (const stage of others.slice(0, Math.max(0, room))) await images.keep(tenant.name, stage, []);
    for (const tag of options.isQuiet ? [] : options.tags)
      await emit({ stream: `Successfully tagged ${familiarReference(tag)}\n` });
    if (options.isQuiet) await emit({ stream: `${imageId}\n` });
  }
}

function isNameOf(image: TenantImage, reference: string): boolean {
  const parsed = parseNamed(reference);
  if (parsed.kind === 'invalid') return false;
  const { repository, tag, digest } = parsed.name;
  if (digest !== '') return image.digests.includes(`${repository}@${digest}`);
  return image.references.includes(wholeReference({ repository, tag: tag === '' ? 'latest' : tag }));
}

/** A FROM means one image: without tag and digest a pull would bring all of a repository. */
function withDefaultTag(reference: string): string {
  const parsed = parseNamed(reference);
  if (parsed.kind === 'invalid' || parsed.name.tag !== '' || parsed.name.digest !== '') return reference;
  return `${reference}:latest`;
}

/** Docker's name for its hub among logins. */
const HUB_LOGIN = 'https://index.docker.io/v1/';

function registryOfLogin(name: string): string {
  return name.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
}

/** The login for a reference's registry: clients write those with a scheme and a path, or without. */
function loginFor(logins: RegistryLogins, reference: string): RegistryAuth | undefined {
  const parsed = parseNamed(reference);
  const domain = parsed.kind === 'invalid' ? '' : (parsed.name.repository.split('/')[0] ?? '');
  if (domain === 'docker.io') return logins.get(HUB_LOGIN) ?? logins.get(domain);
  return logins.get(domain) ?? [...logins].find(([name]) => registryOfLogin(name) === domain)?.[1];
}

function told(line: EngineLine, words: OriginalWords): BuildLine {
  if (line.kind === 'stage') return { aux: { ID: line.imageId } };
  if (line.kind === 'output') return { stream: words.output(line.text) };
  return failureLine(words.failure(line.message), line.code);
}
