/**
 * Removes downloaded models from a page's store: the file of one URL, or all. Nothing happens where there are none.
 * @param url as `loadModel` was given it, of a folder each file's own
 */
export async function clearModelCache(url?: string): Promise<void> {
  await (await import("./model-cache.js")).clear(url);
}
