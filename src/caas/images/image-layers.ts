/** Layers of images: their chain ids and sizes, and what of them images share. Pure. */
import { createHash } from 'node:crypto';

/** What is known of an image's layers. */
export interface LayerFacts {
  readonly diffIds: readonly string[];
  /** Of the whole image. */
  readonly size: number;
  /** Sizes in the image's history, oldest first. */
  readonly historySizes: readonly number[];
}

/** Ids of layers with all below them (OCI image specification, `ChainID`), lowest first. */
export function chainIdsOf(diffIds: readonly string[]): readonly string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : `sha256:${createHash('sha256').update(`${below} ${diffId}`).digest('hex')}`);
  }
  return chain;
}

/**
 * Sizes of layers by chain id. A history does not say which of its entries have a layer; those without one have no size, and where some layers
 * have none either it cannot be told whose sizes these are: then all of the image is said to be its topmost layer.
 */
export function layerSizesOf({ diffIds, size, historySizes }: LayerFacts): ReadonlyMap<string, number> {
  const sizes = historySizes.filter((entry) => entry > 0);
  const isAligned = sizes.length === diffIds.length;
  const chain = chainIdsOf(diffIds);
  return new Map(
    chain.map((chainId, index) => [chainId, isAligned ? (sizes[index] ?? 0) : index === chain.length - 1 ? size : 0]),
  );
}

/** How much of an image is shared with others. */
export function sharedSizeOf(image: LayerFacts, others: readonly LayerFacts[]): number {
  const theirs = new Set(others.flatMap(({ diffIds }) => chainIdsOf(diffIds)));
  return [...layerSizesOf(image)].reduce((sum, [chainId, size]) => sum + (theirs.has(chainId) ? size : 0), 0);
}

/** The layers that go with an image, topmost first, as Docker tells them, and what that frees. */
export function layersToDelete(
  image: LayerFacts,
  others: readonly LayerFacts[],
): { readonly chainIds: readonly string[]; readonly bytes: number } {
  const kept = new Set(others.flatMap(({ diffIds }) => chainIdsOf(diffIds)));
  const gone = [...layerSizesOf(image)].filter(([chainId]) => !kept.has(chainId));
  return { chainIds: gone.map(([chainId]) => chainId).toReversed(), bytes: gone.reduce((sum, [, size]) => sum + size, 0) };
}
