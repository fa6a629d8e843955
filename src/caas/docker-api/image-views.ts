/** Docker's JSON of images, rebuilt from parsed parts, in the order of Docker's fields. Pure. Shapes: Docker Engine API 1.24 to 1.44. */
import type { TenantImage } from '#state/images.ts';
import type { EngineImage, EngineImageConfig } from '#caas/engine/engine-answers.ts';
import type { EngineHistory } from '#caas/images/image-engines.ts';
import { familiarReference } from '#caas/images/image-reference.ts';
import type { ImageNames } from './image-filters.ts';
import { numberOf } from './request.ts';

type View = Readonly<Record<string, unknown>>;

const ZERO_TIME = '0001-01-01T00:00:00Z';
/** From here on an untagged image has empty lists. */
const EMPTY_NAMES_SINCE = 1043;
/** From here on there is `Size` only. */
const ONE_SIZE_SINCE = 1044;

/** When an image was made, by its config; by its arrival where nothing is known of it. */
export function createdMsOf(image: TenantImage, known: EngineImage | undefined): number {
  const made = Date.parse(known?.Created ?? '');
  return Number.isNaN(made) ? image.createdMs : made;
}

/** Docker's lists of names, which for nothing differ by version. */
function namesView({ tags, digests }: ImageNames, version: number): View {
  if (version >= EMPTY_NAMES_SINCE) return { RepoDigests: digests, RepoTags: tags };
  if (tags.length === 0 && digests.length === 0) return { RepoDigests: ['<none>@<none>'], RepoTags: ['<none>:<none>'] };
  return { RepoDigests: digests.length === 0 ? null : digests, RepoTags: tags.length === 0 ? null : tags };
}

function sizes(size: number, version: number): View {
  return version >= ONE_SIZE_SINCE ? { Size: size } : { Size: size, VirtualSize: size };
}

/** One row of a list. */
export function imageSummaryView(
  image: { readonly held: TenantImage; readonly known: EngineImage | undefined; readonly sharedSize: number },
  names: ImageNames,
  apiVersion: string,
): View {
  const { held, known, sharedSize } = image;
  const version = numberOf(apiVersion);
  return {
    Containers: -1,
    Created: Math.floor(createdMsOf(held, known) / 1000),
    Id: held.imageId,
    Labels: known?.Config?.Labels ?? null,
    ParentId: '',
    ...namesView(names, version),
    SharedSize: sharedSize,
    ...sizes(known?.Size ?? 0, version),
  };
}

/** Fields that Docker leaves out where they are empty. */
function unlessEmpty(fields: View): View {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && value !== ''));
}

function configView(config: EngineImageConfig | null | undefined): View | null {
  if (config === undefined || config === null) return null;
  const { ExposedPorts, Healthcheck, StopSignal, StopTimeout, Shell } = config;
  return {
    Hostname: config.Hostname,
    Domainname: config.Domainname,
    User: config.User,
    AttachStdin: config.AttachStdin,
    AttachStdout: config.AttachStdout,
    AttachStderr: config.AttachStderr,
    ...unlessEmpty({ ExposedPorts }),
    Tty: config.Tty,
    OpenStdin: config.OpenStdin,
    StdinOnce: config.StdinOnce,
    Env: config.Env ?? null,
    Cmd: config.Cmd ?? null,
    ...unlessEmpty({ Healthcheck }),
    Image: config.Image,
    Volumes: config.Volumes ?? null,
    WorkingDir: config.WorkingDir,
    Entrypoint: config.Entrypoint ?? null,
    OnBuild: config.OnBuild ?? null,
    Labels: config.Labels ?? null,
    ...unlessEmpty({ StopSignal, StopTimeout, Shell }),
  };
}

/** `isHeld`: whether the tenant has an image, by its id; the engine's others are nobody's business. */
export function imageInspectView(
  image: TenantImage,
  known: EngineImage,
  options: { readonly apiVersion: string; readonly isHeld: (imageId: string) => boolean },
): View {
  const layers = known.RootFS?.Layers ?? [];
  return {
    Id: image.imageId,
    RepoTags: image.references.map(familiarReference),
    RepoDigests: image.digests.map(familiarReference),
    Parent: options.isHeld(known.Parent) ? known.Parent : '',
    Comment: known.Comment,
    Created: known.Created,
    Container: known.Container,
    ContainerConfig: configView(known.ContainerConfig),
    DockerVersion: known.DockerVersion,
    Author: known.Author,
    Config: configView(known.Config),
    Architecture: known.Architecture,
    ...unlessEmpty({ Variant: known.Variant }),
    Os: known.Os,
    ...unlessEmpty({ OsVersion: known.OsVersion }),
    ...sizes(known.Size, numberOf(options.apiVersion)),
    GraphDriver: { Data: {}, Name: 'overlay2' },
    RootFS: { Type: known.RootFS?.Type ?? 'layers', ...(layers.length === 0 ? {} : { Layers: layers }) },
    Metadata: { LastTagTime: ZERO_TIME },
  };
}

/** `docker history`: images below that the tenant does not have are missing, as on an engine that pulled only the topmost. */
export function historyView(history: EngineHistory, held: readonly TenantImage[]): readonly View[] {
  return history.map(({ Id, Created, CreatedBy, Size, Comment }) => {
    const image = held.find(({ imageId }) => imageId === Id);
    const tags = (image?.references ?? []).map(familiarReference);
    return {
      Comment,
      Created,
      CreatedBy,
      Id: image === undefined ? '<missing>' : Id,
      Size,
      Tags: tags.length === 0 ? null : tags,
    };
  });
}
