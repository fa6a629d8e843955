/** Names of containers. Pure. */

/** moby `names.RestrictedNamePattern`. */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$/;

const ADJECTIVES =
  'amber brisk calm clever crisp deft eager fair gentle hardy keen kind lively lucid merry neat noble patient placid prompt quick quiet ready rugged sage serene sharp snug spry steady still stout sunny swift tidy trusty vivid warm wise witty'.split(
    ' ',
  );
/** Canals, and what lives and floats on them. */
const NOUNS =
  'barge basin beam berth bollard bosun briare canal coot crane current dyke ferry gate grebe heron keel kingfisher lantern lock mallard midi mooring nivernais otter paddle pilot plank quay reed rudder sluice swan teal towpath tug vedette weir wharf wherry'.split(
    ' ',
  );

export function isContainerName(name: string): boolean {
  return NAME.test(name);
}

/** A name such as `calm_heron`; `attempt` above zero adds a number, so that a tenant with many containers finds a free one. */
export function inventName(random: (below: number) => number, attempt: number): string {
  const name = `${ADJECTIVES[random(ADJECTIVES.length)] ?? 'calm'}_${NOUNS[random(NOUNS.length)] ?? 'lock'}`;
  return attempt === 0 ? name : `${name}${String(random(10 ** Math.min(attempt, 6)))}`;
}
