// What bounds every kernel on this machine. Not part of the package: `limit.mjs` compiles it when it runs.

/** c += x·x in one instruction. */
// @ts-ignore: decorator
@inline
function madd(x: v128, c: v128): v128 {
  return f32x4.relaxed_madd(x, x, c);
}

/**
 * `steps` times 12 multiply-adds of 4 lanes that stay in registers: two units of 4 cycles' latency need 8 that do not
 * wait for one another, and x64 has 16 registers. At `at`: a factor, 16 bytes free, the 12 accumulators.
 */
export function peak(at: usize, steps: i32): void {
  const x = v128.load(at);
  let c0 = v128.load(at, 32), c1 = v128.load(at, 48), c2 = v128.load(at, 64);
  let c3 = v128.load(at, 80), c4 = v128.load(at, 96), c5 = v128.load(at, 112);
  let c6 = v128.load(at, 128), c7 = v128.load(at, 144), c8 = v128.load(at, 160);
  let c9 = v128.load(at, 176), c10 = v128.load(at, 192), c11 = v128.load(at, 208);
  for (; steps > 0; steps--) {
    c0 = madd(x, c0);
    c1 = madd(x, c1);
    c2 = madd(x, c2);
    c3 = madd(x, c3);
    c4 = madd(x, c4);
    c5 = madd(x, c5);
    c6 = madd(x, c6);
    c7 = madd(x, c7);
    c8 = madd(x, c8);
    c9 = madd(x, c9);
    c10 = madd(x, c10);
    c11 = madd(x, c11);
  }
  // What is not stored would not be computed.
  v128.store(at, c0, 32);
  v128.store(at, c1, 48);
  v128.store(at, c2, 64);
  v128.store(at, c3, 80);
  v128.store(at, c4, 96);
  v128.store(at, c5, 112);
  v128.store(at, c6, 128);
  v128.store(at, c7, 144);
  v128.store(at, c8, 160);
  v128.store(at, c9, 176);
  v128.store(at, c10, 192);
  v128.store(at, c11, 208);
}

/**
 * The same with 24 accumulators of which each two lie side by side, so that V8 can make 12 of 256 bits of them: it
 * begins at neighbouring stores. Without that they do not fit into the registers.
 */
export function peak_paired(at: usize, steps: i32): void {
  const x = v128.load(at);
  const y = v128.load(at, 16);
  let c0 = v128.load(at, 32), c1 = v128.load(at, 48), c2 = v128.load(at, 64);
  let c3 = v128.load(at, 80), c4 = v128.load(at, 96), c5 = v128.load(at, 112);
  let c6 = v128.load(at, 128), c7 = v128.load(at, 144), c8 = v128.load(at, 160);
  let c9 = v128.load(at, 176), c10 = v128.load(at, 192), c11 = v128.load(at, 208);
  let c12 = v128.load(at, 224), c13 = v128.load(at, 240), c14 = v128.load(at, 256);
  let c15 = v128.load(at, 272), c16 = v128.load(at, 288), c17 = v128.load(at, 304);
  let c18 = v128.load(at, 320), c19 = v128.load(at, 336), c20 = v128.load(at, 352);
  let c21 = v128.load(at, 368), c22 = v128.load(at, 384), c23 = v128.load(at, 400);
  for (; steps > 0; steps--) {
    c0 = madd(x, c0);
    c1 = madd(y, c1);
    c2 = madd(x, c2);
    c3 = madd(y, c3);
    c4 = madd(x, c4);
    c5 = madd(y, c5);
    c6 = madd(x, c6);
    c7 = madd(y, c7);
    c8 = madd(x, c8);
    c9 = madd(y, c9);
    c10 = madd(x, c10);
    c11 = madd(y, c11);
    c12 = madd(x, c12);
    c13 = madd(y, c13);
    c14 = madd(x, c14);
    c15 = madd(y, c15);
    c16 = madd(x, c16);
    c17 = madd(y, c17);
    c18 = madd(x, c18);
    c19 = madd(y, c19);
    c20 = madd(x, c20);
    c21 = madd(y, c21);
    c22 = madd(x, c22);
    c23 = madd(y, c23);
  }
  v128.store(at, c0, 32);
  v128.store(at, c1, 48);
  v128.store(at, c2, 64);
  v128.store(at, c3, 80);
  v128.store(at, c4, 96);
  v128.store(at, c5, 112);
  v128.store(at, c6, 128);
  v128.store(at, c7, 144);
  v128.store(at, c8, 160);
  v128.store(at, c9, 176);
  v128.store(at, c10, 192);
  v128.store(at, c11, 208);
  v128.store(at, c12, 224);
  v128.store(at, c13, 240);
  v128.store(at, c14, 256);
  v128.store(at, c15, 272);
  v128.store(at, c16, 288);
  v128.store(at, c17, 304);
  v128.store(at, c18, 320);
  v128.store(at, c19, 336);
  v128.store(at, c20, 352);
  v128.store(at, c21, 368);
  v128.store(at, c22, 384);
  v128.store(at, c23, 400);
}

/** The sum of the memory from `from` on, stored at `at`: `bytes` is a multiple of 128. */
export function read(at: usize, from: usize, bytes: usize): void {
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  let s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (const end = from + bytes; from < end; from += 128) {
    s0 = f32x4.add(s0, v128.load(from));
    s1 = f32x4.add(s1, v128.load(from, 16));
    s2 = f32x4.add(s2, v128.load(from, 32));
    s3 = f32x4.add(s3, v128.load(from, 48));
    s4 = f32x4.add(s4, v128.load(from, 64));
    s5 = f32x4.add(s5, v128.load(from, 80));
    s6 = f32x4.add(s6, v128.load(from, 96));
    s7 = f32x4.add(s7, v128.load(from, 112));
  }
  v128.store(at, s0);
  v128.store(at, s1, 16);
  v128.store(at, s2, 32);
  v128.store(at, s3, 48);
  v128.store(at, s4, 64);
  v128.store(at, s5, 80);
  v128.store(at, s6, 96);
  v128.store(at, s7, 112);
}
