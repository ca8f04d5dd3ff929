/** out[r] = index of the largest of row r, the first of equals; NaN is never the largest. Range: rows. */
export function argmax(out: usize, x: usize, rows: u32, cols: u32, begin: u32, end: u32): void {
  for (let row = begin; row < end; row++) {
    const p = x + (<usize>row * cols << 2);
    let best: f32 = -Infinity;
    let at: u32 = 0;
    for (let i: u32 = 0; i < cols; i++) {
      const value = load<f32>(p + (<usize>i << 2));
      if (value > best) {
        best = value;
        at = i;
      }
    }
    store<u32>(out + (<usize>row << 2), at);
  }
}
