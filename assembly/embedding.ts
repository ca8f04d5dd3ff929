import { accumulate } from "./elementwise";

/**
 * out[t] = table[ids[t] - first] for ids in [first, first + count); other rows of out are left as they are, so
 * that a second table can fill them. Range: n ids.
 */
export function embedding(
  out: usize, table: usize, ids: usize, n: u32, dim: u32, first: u32, count: u32, begin: u32, end: u32,
): void {
  const bytes = <usize>dim << 2;
  for (let t = begin; t < end; t++) {
    const row = load<u32>(ids + (<usize>t << 2)) - first;
    if (row < count) memory.copy(out + <usize>t * bytes, table + <usize>row * bytes, bytes);
  }
}

/** dtable[ids[t] - first] += dout[t], in the order of t. Range: columns, dim. */
export function embedding_backward(
  dtable: usize, dout: usize, ids: usize, n: u32, dim: u32, first: u32, count: u32, begin: u32, end: u32,
): void {
  const bytes = <usize>dim << 2;
  for (let t: u32 = 0; t < n; t++) {
    const row = load<u32>(ids + (<usize>t << 2)) - first;
    if (row < count) accumulate(dtable + <usize>row * bytes, dout + <usize>t * bytes, dim, 1, begin, end);
  }
}
