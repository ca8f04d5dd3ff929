/**
 * Draws an item by shares that sum to 1.
 * @param {import("oriflamme").Random} random
 * @param {readonly (readonly [item: string, share: number])[]} shares
 */
export function drawByShare(random, shares) {
  const place = random.uniform();
  let below = 0;
  for (const [item, share] of shares) {
    below += share;
    if (place < below) return item;
  }
  // Rounding may leave the sum a little below 1.
  return shares.at(-1)[0];
}
