/** Work side by side where nobody may go on while a part of it is still under way. */

/** As `Promise.all` for two, but it settles only when both have: what fails must not leave a copy running behind the one who cleans up. */
export async function bothDone<A, B>(one: Promise<A>, other: Promise<B>): Promise<readonly [A, B]> {
  await Promise.allSettled([one, other]);
  return [await one, await other];
}
