// Causal attention on tiles: no matrix of queries by keys is ever held. The products of a tile go through the
// register tile; the softmax runs along (forward) or is recomputed from its log-sum-exp (backward).

import { decode, F16, PLACES } from "./quant";
import { exp1, expConstants, expTerm4, expTermWith, larger4, loadTail, log1, madd, max4, scratch, splat, sum4 } from "./simd";
import { gemm, pack, zeroRow } from "./tile";

/** Keys of a tile: whole panels, of 8 columns or of 16. */
const KEYS: i32 = 64;
/**
 * How far scores may rise above a row's maximum before it is moved and what was summed up so far scaled down: terms
 * stay under e^8, and most tiles spare their rows the scaling (FlashAttention-4's trick).
 */
const SLACK: f32 = 8;
/** Queries of a tile: a multiple of the register tile's height, 4 or 6. */
const QUERIES: i32 = 48;
const TILE_ROW: usize = <usize>KEYS << 2;
const TILE_BYTES: usize = <usize>QUERIES * TILE_ROW;

/** Keys at or after this index, of those in the tile, that query position `p` sees. */
// @ts-ignore: decorator
@inline
function firstKey(p: i32, key: i32, window: i32): i32 {
  return window > 0 ? max(0, p - window + 1 - key) : 0;
}

/** Keys of the tile before this index are seen by query position `p`. */
// @ts-ignore: decorator
@inline
function lastKey(p: i32, key: i32, keys: i32): i32 {
  return min(keys, p + 1 - key);
}

/** Columns of the tile that rows up to position `p` see, in whole steps of 16: what lies right of them is left alone. */
// @ts-ignore: decorator
@inline
function visibleKeys(p: i32, key: i32, keys: i32): i32 {
  return min(keys, p + 1 - key) + 15 & ~15;
}

/** Sets the floats outside [first, last) of the first `width` of a row of the tile. */
// @ts-ignore: decorator
@inline
function maskRow(row: usize, width: i32, first: i32, last: i32, value: f32): void {
  for (let j = 0; j < first; j++) store<f32>(row + (<usize>j << 2), value);
  for (let j = max(0, last); j < width; j++) store<f32>(row + (<usize>j << 2), value);
}

/** The largest score of `bytes` (a multiple of 64) of a row, in four chains: one would wait for each comparison. */
// @ts-ignore: decorator
@inline
function rowMaximum(row: usize, bytes: usize): f32 {
  let a = v128.load(row), b = v128.load(row, 16), c = v128.load(row, 32), d = v128.load(row, 48);
  for (let j: usize = 64; j < bytes; j += 64) {
    a = larger4(a, v128.load(row + j));
    b = larger4(b, v128.load(row + j, 16));
    c = larger4(c, v128.load(row + j, 32));
    d = larger4(d, v128.load(row + j, 48));
  }
  return max4(larger4(larger4(a, b), larger4(c, d)));
}

/**
 * Turns `bytes` (a multiple of 64) of a row of scores into e^(score - m) and returns their sum. Vectors go in pairs,
 * loads before stores, for V8's revectorisation.
 */
// @ts-ignore: decorator
@inline
function exponentials(row: usize, bytes: usize, m: f32, c: usize): f32 {
  const shift = splat(m);
  let sum0 = splat(0);
  let sum1 = splat(0);
  const log2e = v128.load_splat<f32>(c), rounder = v128.load_splat<f32>(c, 4);
  const ln2High = v128.load_splat<f32>(c, 8), ln2Low = v128.load_splat<f32>(c, 12);
  const c6 = v128.load_splat<f32>(c, 16), c5 = v128.load_splat<f32>(c, 20), c4 = v128.load_splat<f32>(c, 24);
  const c3 = v128.load_splat<f32>(c, 28), c2 = v128.load_splat<f32>(c, 32);
  const one = v128.load_splat<f32>(c, 36), least = v128.load_splat<f32>(c, 40);
  for (const end = row + bytes; row < end; row += 32) {
    const x0 = f32x4.sub(v128.load(row), shift);
    const x1 = f32x4.sub(v128.load(row, 16), shift);
    const e0 = expTermWith(x0, log2e, rounder, ln2High, ln2Low, c6, c5, c4, c3, c2, one, least);
    const e1 = expTermWith(x1, log2e, rounder, ln2High, ln2Low, c6, c5, c4, c3, c2, one, least);
    v128.store(row, e0);
    v128.store(row, e1, 16);
    sum0 = f32x4.add(sum0, e0);
    sum1 = f32x4.add(sum1, e1);
  }
  return sum4(f32x4.add(sum0, sum1));
}

// @ts-ignore: decorator
@inline
function scaleRow(p: usize, n: i32, factor: f32): void {
  const f = splat(factor);
  let i = 0;
  for (; i + 4 <= n; i += 4) {
    v128.store(p, f32x4.mul(v128.load(p), f));
    p += 16;
  }
  for (; i < n; i++) {
    store<f32>(p, load<f32>(p) * factor);
    p += 4;
  }
}

/**
 * Turns a row of scores into e^(score - shift) and brings the row's shift, which its maximum exceeds by SLACK at
 * most, its sum (`stat` holds both) and its output up to date.
 */
// @ts-ignore: decorator
@inline
function softmaxRow(
  row: usize, width: i32, stat: usize, out: usize, head_dim: i32, first: i32, last: i32, c: usize,
): void {
  if (first > 0 || last < width) maskRow(row, width, first, last, -Infinity);
  const bytes = <usize>width << 2;
  const maximum = rowMaximum(row, bytes);
  let shift = load<f32>(stat);
  let sum = load<f32>(stat, 4);
  if (!(maximum <= shift + SLACK)) {
    if (sum != 0) {
      const correction = exp1(shift - maximum, c);
      sum *= correction;
      scaleRow(out, head_dim, correction);
    }
    shift = maximum;
    store<f32>(stat, shift);
  }
  store<f32>(stat, sum + exponentials(row, bytes, shift, c), 4);
}

/**
 * Keys and values of a cache are f32 (K = f32) or binary16 (K = u16). Exponent and fraction of a half, put at their
 * places in f32, are its value times 2^-112, which is what the products below are made with: whatever the half meets
 * is 2^112 as large, so that a half costs a shift and a mask, and subnormal ones are exact too.
 */
// @ts-ignore: decorator
@inline
function raw4<K>(p: usize): v128 {
  if (sizeof<K>() == 4) return v128.load(p);
  return v128.and(i32x4.shl(v128.load_ext<i16>(p), 13), i32x4.splat(PLACES));
}

// @ts-ignore: decorator
@inline
function raw1<K>(p: usize): f32 {
  if (sizeof<K>() == 4) return load<f32>(p);
  return reinterpret<f32>(<i32>load<i16>(p) << 13 & PLACES);
}

/** The first `count` (1 to 3) numbers at `p`, zeros in the other lanes. */
// @ts-ignore: decorator
@inline
function rawTail<K>(p: usize, count: i32): v128 {
  if (sizeof<K>() == 4) return loadTail(p, count, 0);
  let v = f32x4.replace_lane(splat(0), 0, raw1<K>(p));
  if (count > 1) v = f32x4.replace_lane(v, 1, raw1<K>(p + 2));
  if (count > 2) v = f32x4.replace_lane(v, 2, raw1<K>(p + 4));
  return v;
}

/**
 * The 2^112 in two parts: 2^100 times a query is finite for all queries under 2^27, and the rest of the scores' scale
 * comes after the sum.
 */
// @ts-ignore: decorator
@inline
const QUERY_SCALE: f32 = 1.2676506002282294e30;
// @ts-ignore: decorator
@inline
const SCORE_SCALE: f32 = 4096;
/** 2^112 for the weights of values, which are 1 at most. */
// @ts-ignore: decorator
@inline
const WEIGHT_SCALE: f32 = 5.192296858534828e33;

/** The scores of one query against four keys; `bytes` are the query's. */
// @ts-ignore: decorator
@inline
function scores4<K>(q: usize, k0: usize, k1: usize, k2: usize, k3: usize, bytes: usize): v128 {
  const shift = sizeof<K>() == 4 ? 0 : 1;
  let s0 = splat(0), s1 = splat(0), s2 = splat(0), s3 = splat(0);
  let i: usize = 0;
  for (const body = bytes & ~15; i < body; i += 16) {
    const x = v128.load(q + i);
    const at = i >> shift;
    s0 = madd(x, raw4<K>(k0 + at), s0);
    s1 = madd(x, raw4<K>(k1 + at), s1);
    s2 = madd(x, raw4<K>(k2 + at), s2);
    s3 = madd(x, raw4<K>(k3 + at), s3);
  }
  const left = <i32>(bytes - i >> 2);
  if (left) {
    const x = loadTail(q + i, left, 0);
    const at = i >> shift;
    s0 = madd(x, rawTail<K>(k0 + at, left), s0);
    s1 = madd(x, rawTail<K>(k1 + at, left), s1);
    s2 = madd(x, rawTail<K>(k2 + at, left), s2);
    s3 = madd(x, rawTail<K>(k3 + at, left), s3);
  }
  const s01 = f32x4.add(v128.shuffle<f32>(s0, s1, 0, 4, 1, 5), v128.shuffle<f32>(s0, s1, 2, 6, 3, 7));
  const s23 = f32x4.add(v128.shuffle<f32>(s2, s3, 0, 4, 1, 5), v128.shuffle<f32>(s2, s3, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f64>(s01, s23, 0, 2), v128.shuffle<f64>(s01, s23, 1, 3));
}

/** A weight in every lane, as the values want it. */
// @ts-ignore: decorator
@inline
function weight4<K>(p: usize): v128 {
  const weight = v128.load_splat<f32>(p);
  return sizeof<K>() == 4 ? weight : f32x4.mul(weight, splat(WEIGHT_SCALE));
}

/** out = out · kept + Σ weights · values over `keys` rows of values, a few columns at a time held in registers. */
// @ts-ignore: decorator
@inline
function addValues<K>(out: usize, weights: usize, v: usize, kvRow: usize, keys: i32, head_dim: i32, kept: f32): void {
  const end = weights + (<usize>keys << 2);
  const kept4 = splat(kept);
  const vector: usize = 4 * sizeof<K>();
  for (; head_dim >= 16; head_dim -= 16) {
    let o0 = f32x4.mul(kept4, v128.load(out));
    let o1 = f32x4.mul(kept4, v128.load(out, 16));
    let o2 = f32x4.mul(kept4, v128.load(out, 32));
    let o3 = f32x4.mul(kept4, v128.load(out, 48));
    let value = v;
    for (let p = weights; p < end; p += 4) {
      const p4 = weight4<K>(p);
      o0 = madd(p4, raw4<K>(value), o0);
      o1 = madd(p4, raw4<K>(value + vector), o1);
      o2 = madd(p4, raw4<K>(value + 2 * vector), o2);
      o3 = madd(p4, raw4<K>(value + 3 * vector), o3);
      value += kvRow;
    }
    v128.store(out, o0);
    v128.store(out, o1, 16);
    v128.store(out, o2, 32);
    v128.store(out, o3, 48);
    out += 64;
    v += 4 * vector;
  }
  for (; head_dim >= 4; head_dim -= 4) {
    let o = f32x4.mul(kept4, v128.load(out));
    let value = v;
    for (let p = weights; p < end; p += 4) {
      o = madd(weight4<K>(p), raw4<K>(value), o);
      value += kvRow;
    }
    v128.store(out, o);
    out += 16;
    v += vector;
  }
  for (; head_dim > 0; head_dim--) {
    let o = kept * load<f32>(out);
    let value = v;
    for (let p = weights; p < end; p += 4) {
      const weight = load<f32>(p);
      o += (sizeof<K>() == 4 ? weight : weight * WEIGHT_SCALE) * raw1<K>(value);
      value += kvRow;
    }
    store<f32>(out, o);
    out += 4;
    v += sizeof<K>();
  }
}

/** Few queries, as in decoding: no tile pays for itself, so scores are dot products along the head, four keys at once. */
function attendRow<K>(
  out: usize, stat: usize, q: usize, k: usize, v: usize, kvRow: usize, first: i32, last: i32, head_dim: i32, scale: f32, c: usize,
): void {
  const bytes = <usize>head_dim << 2;
  if (sizeof<K>() != 4) {
    const scaled = scratch + TILE_ROW;
    memory.copy(scaled, q, bytes);
    scaleRow(scaled, head_dim, QUERY_SCALE);
    q = scaled;
    scale *= SCORE_SCALE;
  }
  const scale4 = splat(scale);
  memory.fill(out, 0, bytes);
  let m: f32 = -Infinity;
  let sum: f32 = 0;
  for (let j = first; j < last; j += KEYS) {
    const keys = min(KEYS, last - j);
    const end = k + <usize>(j + keys - 1) * kvRow;
    let k0 = k + <usize>j * kvRow;
    for (let at = 0; at < keys; at += 4) {
      const k1 = min(k0 + kvRow, end);
      const k2 = min(k1 + kvRow, end);
      const k3 = min(k2 + kvRow, end);
      v128.store(scratch + (<usize>at << 2), f32x4.mul(scores4<K>(q, k0, k1, k2, k3, bytes), scale4));
      k0 += 4 * kvRow;
    }
    const width = keys + 15 & ~15;
    maskRow(scratch, width, 0, keys, -Infinity);
    const next = max(m, rowMaximum(scratch, <usize>width << 2));
    const terms = exponentials(scratch, <usize>width << 2, next, c);
    const kept: f32 = j > first ? exp1(m - next, c) : 0;
    sum = sum * kept + terms;
    m = next;
    addValues<K>(out, scratch, v + <usize>j * kvRow, kvRow, keys, head_dim, kept);
  }
  scaleRow(out, head_dim, 1 / sum);
  store<f32>(stat, m + log1(sum));
  store<f32>(stat, 0, 4);
}

/**
 * How far apart the rows of a tile are that lie `row` bytes apart: there, or one behind the other where `tileOf` puts
 * them. It does where rows of a multiple of 1 KiB share so few sets of the first-level cache that no product of the
 * tile finds them there (8 heads of 64 run 1.1 times as fast so, 6 of 48 are 0.9 times as fast), and f16.
 */
// @ts-ignore: decorator
@inline
function tileRowOf<K>(row: usize, head_dim: i32): usize {
  return sizeof<K>() == 4 && row & 1023 ? row : <usize>head_dim << 2;
}

/** One head of some positions, `row` bytes apart, as f32 rows of `tileRowOf`: where they lie, or at `to`. */
function tileOf<K>(to: usize, from: usize, row: usize, rows: i32, head_dim: i32): usize {
  const head = <usize>head_dim << 2;
  if (sizeof<K>() == 4 && row & 1023) return from;
  for (let r = 0; r < rows; r++) {
    const at = to + <usize>r * head;
    if (sizeof<K>() == 4) copyRow(at, from, head);
    else decode(at, from, head_dim, F16);
    from += row;
  }
  return to;
}

// @ts-ignore: decorator
@inline
function copyRow(to: usize, from: usize, bytes: usize): void {
  let i: usize = 0;
  for (; i + 16 <= bytes; i += 16) v128.store(to + i, v128.load(from + i));
  for (; i < bytes; i += 4) store<f32>(to + i, load<f32>(from + i));
}

/** `attention` over keys and values of type K. */
function attend<K>(
  out: usize, stats: usize, q: usize, k: usize, v: usize, positions: usize,
  q_len: u32, kv_len: u32, kv_rows: u32, heads: u32, kv_heads: u32, head_dim: u32, window: u32,
  scale: f32, begin: u32, end: u32,
): void {
  const group = heads / kv_heads;
  const head = <usize>head_dim << 2;
  const qRow = <usize>heads * head;
  const kvHeadBytes = <usize>head_dim * sizeof<K>();
  const kvRow = <usize>kv_heads * kvHeadBytes;
  const tileRow = tileRowOf<K>(kvRow, head_dim);
  const keysT = scratch;
  const gathered = keysT + <usize>KEYS * head;
  const scores = gathered + <usize>KEYS * head;
  const zeros = zeroRow(KEYS);
  const c = expConstants();

  for (let index = begin; index < end; index++) {
    const b = index / kv_heads;
    const kvHead = index - b * kv_heads;
    const kvStart = (<usize>b * kv_rows * kv_heads + kvHead) * kvHeadBytes;
    const offset = <i32>(positions ? load<u32>(positions + (<usize>b << 2)) : kv_len - q_len);
    const length = offset + <i32>q_len;
    const firstHead = kvHead * group;

    if (q_len < 4) {
      for (let h = firstHead; h < firstHead + group; h++) {
        for (let t: u32 = 0; t < q_len; t++) {
          const p = offset + <i32>t;
          const at = ((<usize>b * q_len + t) * heads + h) * head;
          attendRow<K>(
            out + at, stats + ((<usize>b * heads + h) * q_len + t << 3), q + at, k + kvStart, v + kvStart, kvRow,
            firstKey(p, 0, window), p + 1, head_dim, scale, c,
          );
        }
      }
      continue;
    }

    for (let h = firstHead; h < firstHead + group; h++) {
      const stat = stats + ((<usize>b * heads + h) * q_len << 3);
      for (let t: u32 = 0; t < q_len; t++) {
        store<f32>(stat + (<usize>t << 3), -Infinity);
        store<f32>(stat + (<usize>t << 3), 0, 4);
        memory.fill(out + ((<usize>b * q_len + t) * heads + h) * head, 0, head);
      }
    }
    for (let key = 0; key < length; key += KEYS) {
      const keys = min(KEYS, length - key);
      const start = kvStart + <usize>key * kvRow;
      pack(keysT, tileOf<K>(gathered, k + start, kvRow, keys, head_dim), 4, tileRow, head_dim, keys);
      const values = tileOf<K>(gathered, v + start, kvRow, keys, head_dim);
      for (let h = firstHead; h < firstHead + group; h++) {
        const stat = stats + ((<usize>b * heads + h) * q_len << 3);
        for (let t = max(0, key - offset); t < <i32>q_len; t += QUERIES) {
          const p = offset + t;
          if (firstKey(p, key, window) >= keys) break;
          const rows = min(QUERIES, <i32>q_len - t);
          const at = ((<usize>b * q_len + t) * heads + h) * head;
          const width = visibleKeys(p + rows - 1, key, keys);
          const seen = min(width, keys);
          gemm(scores, TILE_ROW, zeros, 0, q + at, qRow, 4, 0, keysT, 0, rows, head_dim, seen, scale);
          for (let r = 0; r < rows; r++) {
            const row = scores + <usize>r * TILE_ROW;
            const first = firstKey(p + r, key, window);
            const last = lastKey(p + r, key, keys);
            if (first < last) {
              softmaxRow(row, width, stat + (<usize>(t + r) << 3), out + at + <usize>r * qRow, head_dim, first, last, c);
            } else {
              maskRow(row, width, 0, 0, 0);
            }
          }
          gemm(out + at, qRow, out + at, qRow, scores, TILE_ROW, 4, 0, values, tileRow, rows, seen, head_dim, 1);
        }
      }
    }
    for (let h = firstHead; h < firstHead + group; h++) {
      const stat = stats + ((<usize>b * heads + h) * q_len << 3);
      for (let t: u32 = 0; t < q_len; t++) {
        const sum = load<f32>(stat + (<usize>t << 3), 4);
        scaleRow(out + ((<usize>b * q_len + t) * heads + h) * head, head_dim, 1 / sum);
        store<f32>(stat + (<usize>t << 3), load<f32>(stat + (<usize>t << 3)) + log1(sum));
        store<f32>(stat + (<usize>t << 3), 0, 4);
      }
    }
  }
}

/**
 * out (batch, q_len, heads, head_dim) = softmax(scale · q · kᵀ) · v, query t at position kv_len - q_len + t, or at
 * positions[b] + t in sequence b where there are such (batch). k, v: (batch, kv_rows, kv_heads, head_dim), of which
 * the rows up to the last query's position are used, at most kv_len; f32, or f16 where kv_type says so. window: keys
 * seen, the position's own included; 0 for all. stats (batch, heads, q_len, 2): log-sum-exp, and room for the
 * backward. Range: batch · kv_heads.
 */
export function attention(
  out: usize, stats: usize, q: usize, k: usize, v: usize, positions: usize,
  batch: u32, q_len: u32, kv_len: u32, kv_rows: u32, heads: u32, kv_heads: u32, head_dim: u32, window: u32,
  kv_type: u32, has_positions: u32, scale: f32, begin: u32, end: u32,
): void {
  const at = has_positions ? positions : 0;
  if (kv_type == F16) {
    attend<u16>(out, stats, q, k, v, at, q_len, kv_len, kv_rows, heads, kv_heads, head_dim, window, scale, begin, end);
  } else {
    attend<f32>(out, stats, q, k, v, at, q_len, kv_len, kv_rows, heads, kv_heads, head_dim, window, scale, begin, end);
  }
}

/** stats[…, 1] = Σ dout · out over the head: what the softmax's backward subtracts. Range: batch · q_len. */
export function attention_delta(
  stats: usize, dout: usize, out: usize,
  batch: u32, q_len: u32, heads: u32, head_dim: u32, begin: u32, end: u32,
): void {
  const body = head_dim & ~3;
  for (let row = begin; row < end; row++) {
    const b = row / q_len;
    const t = row - b * q_len;
    for (let h: u32 = 0; h < heads; h++) {
      const at = (<usize>row * heads + h) * head_dim << 2;
      let sum4_ = splat(0);
      let i: u32 = 0;
      for (; i < body; i += 4) {
        const offset = at + (<usize>i << 2);
        sum4_ = madd(v128.load(dout + offset), v128.load(out + offset), sum4_);
      }
      let sum = sum4(sum4_);
      for (; i < head_dim; i++) {
        const offset = at + (<usize>i << 2);
        sum += load<f32>(dout + offset) * load<f32>(out + offset);
      }
      store<f32>(stats + ((<usize>b * heads + h) * q_len + t << 3), sum, 4);
    }
  }
}

/**
 * p = e^(score - lse) inside [first, last), 0 outside; dscore = p · (dp - delta) · scale in place of dp, which may be
 * anything outside: the first `width` of each row are made.
 */
// @ts-ignore: decorator
@inline
function softmaxBackwardRow(
  row: usize, drow: usize, width: i32, lse: f32, delta: f32, scale: f32, first: i32, last: i32, c: usize,
): void {
  const lse4 = splat(lse);
  const delta4 = splat(delta);
  const scale4 = splat(scale);
  if (first > 0 || last < width) maskRow(row, width, first, last, -Infinity);
  const bytes = <usize>width << 2;
  for (let j: usize = 0; j < bytes; j += 32) {
    const p0 = expTerm4(f32x4.sub(v128.load(row + j), lse4), c);
    const p1 = expTerm4(f32x4.sub(v128.load(row + j, 16), lse4), c);
    const d0 = f32x4.mul(f32x4.mul(p0, f32x4.sub(v128.load(drow + j), delta4)), scale4);
    const d1 = f32x4.mul(f32x4.mul(p1, f32x4.sub(v128.load(drow + j, 16), delta4)), scale4);
    v128.store(row + j, p0);
    v128.store(row + j, p1, 16);
    v128.store(drow + j, d0);
    v128.store(drow + j, d1, 16);
  }
  if (first > 0 || last < width) maskRow(drow, width, first, last, 0);
}

/**
 * Adds the gradients of q, k and v, recomputing each tile's softmax from the log-sum-exp. `stats` as `attention`
 * and `attention_delta` left them. Range: batch · kv_heads.
 */
export function attention_backward(
  dq: usize, dk: usize, dv: usize, dout: usize, q: usize, k: usize, v: usize, stats: usize,
  batch: u32, q_len: u32, kv_len: u32, kv_rows: u32, heads: u32, kv_heads: u32, head_dim: u32, window: u32,
  scale: f32, begin: u32, end: u32,
): void {
  const group = heads / kv_heads;
  const head = <usize>head_dim << 2;
  const qRow = <usize>heads * head;
  const kvRow = <usize>kv_heads * head;
  const qTileRow = tileRowOf<f32>(qRow, head_dim);
  const kvTileRow = tileRowOf<f32>(kvRow, head_dim);
  const offset = <i32>kv_len - <i32>q_len;
  const keysT = scratch;
  const valuesT = keysT + <usize>KEYS * head;
  const gathered = valuesT + <usize>KEYS * head;
  const gatheredQ = gathered + <usize>KEYS * head;
  const gatheredD = gatheredQ + <usize>QUERIES * head;
  const scores = gatheredD + <usize>QUERIES * head;
  const dscores = scores + TILE_BYTES;
  const zeros = zeroRow(KEYS);
  const c = expConstants();

  for (let index = begin; index < end; index++) {
    const b = index / kv_heads;
    const kvHead = index - b * kv_heads;
    const kvStart = (<usize>b * kv_rows * kv_heads + kvHead) * head;
    const firstHead = kvHead * group;
    for (let key = 0; key < <i32>kv_len; key += KEYS) {
      const keys = min(KEYS, <i32>kv_len - key);
      const tileStart = kvStart + <usize>key * kvRow;
      pack(valuesT, tileOf<f32>(gathered, v + tileStart, kvRow, keys, head_dim), 4, kvTileRow, head_dim, keys);
      const keyRows = tileOf<f32>(gathered, k + tileStart, kvRow, keys, head_dim);
      pack(keysT, keyRows, 4, kvTileRow, head_dim, keys);
      for (let h = firstHead; h < firstHead + group; h++) {
        for (let t = max(0, key - offset); t < <i32>q_len; t += QUERIES) {
          const p = offset + t;
          if (firstKey(p, key, window) >= keys) break;
          const rows = min(QUERIES, <i32>q_len - t);
          const at = ((<usize>b * q_len + t) * heads + h) * head;
          const width = visibleKeys(p + rows - 1, key, keys);
          const seen = min(width, keys);
          const queries = tileOf<f32>(gatheredQ, q + at, qRow, rows, head_dim);
          const douts = tileOf<f32>(gatheredD, dout + at, qRow, rows, head_dim);
          gemm(scores, TILE_ROW, zeros, 0, queries, qTileRow, 4, 0, keysT, 0, rows, head_dim, seen, scale);
          gemm(dscores, TILE_ROW, zeros, 0, douts, qTileRow, 4, 0, valuesT, 0, rows, head_dim, seen, 1);
          for (let r = 0; r < rows; r++) {
            const stat = stats + ((<usize>b * heads + h) * q_len + t + r << 3);
            const first = min(keys, firstKey(p + r, key, window));
            const last = max(first, lastKey(p + r, key, keys));
            softmaxBackwardRow(
              scores + <usize>r * TILE_ROW, dscores + <usize>r * TILE_ROW, width,
              load<f32>(stat), load<f32>(stat, 4), scale, first, last, c,
            );
          }
          const dkTile = dk + tileStart;
          const dvTile = dv + tileStart;
          gemm(dvTile, kvRow, dvTile, kvRow, scores, 4, TILE_ROW, 0, douts, qTileRow, seen, rows, head_dim, 1);
          gemm(dkTile, kvRow, dkTile, kvRow, dscores, 4, TILE_ROW, 0, queries, qTileRow, seen, rows, head_dim, 1);
          gemm(dq + at, qRow, dq + at, qRow, dscores, TILE_ROW, 4, 0, keyRows, kvTileRow, rows, seen, head_dim, 1);
        }
      }
    }
  }
}
