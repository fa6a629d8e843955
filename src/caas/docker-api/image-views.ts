/** Docker's JSON of images, rebuilt from parsed parts. Pure. Shapes: Docker Engine API 1.41 (`ImageSummary`, `ImageInspect`). */
import type { TenantImage } from '#state/images.ts';
import type { EngineImage } from '#caas/engine-answers.ts';
import { familiarReference } from '#caas/image-reference.ts';

const ZERO_TIME = '0001-01-01T00:00:00Z';

export function imageSummaryView(
  image: TenantImage,
  names: readonly string[],
  known: EngineImage | undefined,
  containers: number,
): Readonly<Record<string, unknown>> {
  return {
    Id: image.imageId,
    ParentId: '',
    RepoTags: names.length === 0 ? null : names,
    RepoDigests: null,
    Created: Math.floor((Date.parse(known?.Created ?? '') || image.createdMs) / 1000),
    Size: known?.Size ?? 0,
    VirtualSize: known?.Size ?? 0,
    SharedSize: -1,
    Labels: known?.Config?.Labels ?? null,
    Containers: containers,
  };
}

export function imageInspectView(image: TenantImage, known: EngineImage): Readonly<Record<string, unknown>> {
  return {
    Id: image.imageId,
    RepoTags: image.references.map(familiarReference),
    RepoDigests: [],
    Parent: '',
    Comment: known.Comment,
    Created: known.Created,
    Container: '',
    DockerVersion: '',
    Author: known.Author,
    Config: known.Config ?? null,
    Architecture: known.Architecture,
    Os: known.Os,
    Size: known.Size,
    VirtualSize: known.Size,
    GraphDriver: { Name: 'overlay2', Data: null },
    RootFS: { Type: known.RootFS?.Type ?? 'layers', Layers: known.RootFS?.Layers ?? [] },
    Metadata: { LastTagTime: ZERO_TIME },
  };
}
