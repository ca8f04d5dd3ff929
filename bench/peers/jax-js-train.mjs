import { llamaConfig, llamaWeights, noiseIds, timed } from "../../dist/cli/bench/kit.js";

/** AdamW as PyTorch has it by default but without decay, clipped at norm 1. */
const [LR, BETA1, BETA2, EPS, CLIP] = [1e-4, 0.9, 0.999, 1e-8, 1];

/**
 * A whole step of training in one jit: forward, backward, clipping, AdamW. Every use of an array gives it up, so
 * each but the last is of its `.ref`.
 */
export async function prepareTrain(jax, { shape }) {
  const { numpy: np, jit, valueAndGrad, tree } = jax;
  const [vocab, batch, length] = shape.slice(5);
  const config = llamaConfig(shape, length);
  const names = [];
  const start = [];
  for (const { name, shape: dims, values } of llamaWeights(config)) {
    names.push(name);
    start.push(np.array(values).reshape(dims));
  }
  const ids = Int32Array.from(noiseIds(batch * length, vocab, 0));
  // The last token of a sequence predicts nothing: its target is left out.
  const targets = ids.filter((_, i) => i % length !== 0);
  const constants = {
    ids: np.array(ids),
    targets: np.array(targets).reshape([batch, length - 1]),
    ...ropeTables(np, config, length),
  };
  const lossAndGradients = valueAndGrad((weights, constants) =>
    languageLoss(jax, config, Object.fromEntries(names.map((name, i) => [name, weights[i]])), constants),
  );

  const step = jit((weights, m, v, corrections, constants) => {
    const [loss, gradients] = lossAndGradients(tree.ref(weights), constants);
    const squares = gradients.map((gradient) => np.sum(np.square(gradient.ref)));
    const norm = np.sqrt(squares.reduce((sum, square) => sum.add(square)));
    const scale = np.minimum(np.array(CLIP).div(norm), 1);
    const [correction1, correction2] = corrections;
    const next = { weights: [], m: [], v: [] };
    for (const [i, raw] of gradients.entries()) {
      const gradient = raw.mul(scale.ref);
      const m1 = m[i].mul(BETA1).add(gradient.ref.mul(1 - BETA1));
      const v1 = v[i].mul(BETA2).add(np.square(gradient).mul(1 - BETA2));
      const root = np.sqrt(v1.ref.div(correction2.ref)).add(EPS);
      next.weights.push(weights[i].sub(m1.ref.div(correction1.ref).div(root).mul(LR)));
      next.m.push(m1);
      next.v.push(v1);
    }
    for (const used of [scale, correction1, correction2]) used.dispose();
    return [loss, next.weights, next.m, next.v];
  });

  let state = { weights: start, m: start.map(zerosLike), v: start.map(zerosLike) };
  function zerosLike(x) {
    return np.zeros(x.shape);
  }
  let steps = 0;
  const run = async () => {
    steps++;
    const corrections = [np.array(1 - BETA1 ** steps), np.array(1 - BETA2 ** steps)];
    const result = step(state.weights, state.m, state.v, corrections, tree.ref(constants));
    const [loss, weights, m, v] = result;
    state = { weights, m, v };
    await jax.blockUntilReady(weights);
    return (await loss.data())[0];
  };
  return {
    sample: async () => [await run(), await run()],
    measure: timed(async () => void (await run())),
    dispose() {
      tree.dispose([state, constants]);
      step.dispose();
    },
  };
}

/** cos and sin of every position, (length, 1, headDim / 2). */
function ropeTables(np, { headDim, position }, length) {
  const half = headDim / 2;
  const angle = (i) => Math.floor(i / half) * position.theta ** (-(i % half) / half);
  const table = (f) =>
    np.array(Float32Array.from({ length: length * half }, (_, i) => f(angle(i)))).reshape([length, 1, half]);
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/** Mean cross-entropy of the targets (batch, length - 1) after ids (batch · length). */
function languageLoss({ numpy: np, nn }, config, weights, { ids, targets, cos, sin }) {
  const batch = targets.shape[0];
  const length = targets.shape[1] + 1;
  const { hiddenSize, vocabSize, heads, kvHeads, headDim } = config;
  const rows = batch * length;
  const linear = (x, weight) => np.matmul(x, weight.transpose());
  const norm = (x, weight) => {
    const scale = np.sqrt(np.mean(np.square(x.ref), -1, { keepdims: true }).add(config.normEps));
    return x.div(scale).mul(weight);
  };
  const rotate = (x) => {
    const [a, b] = np.split(x, 2, -1);
    const first = a.ref.mul(cos.ref).sub(b.ref.mul(sin.ref));
    return np.concatenate([first, b.mul(cos.ref).add(a.mul(sin.ref))], -1);
  };
  const split = (x, count) => x.reshape([batch, length, count, headDim]);

  let x = np.take(weights["embed.weight"].ref, ids, 0);
  for (let layer = 0; layer < config.layers; layer++) {
    const weight = (name) => weights[`layers.${layer}.${name}.weight`];
    let h = norm(x.ref, weight("attention_norm"));
    const q = rotate(split(linear(h.ref, weight("q")), heads));
    const k = rotate(split(linear(h.ref, weight("k")), kvHeads));
    const v = split(linear(h, weight("v")), kvHeads);
    const mixed = nn.dotProductAttention(q, k, v, { isCausal: true });
    x = x.add(linear(mixed.reshape([rows, hiddenSize]), weight("output")));
    h = norm(x.ref, weight("mlp_norm"));
    const gate = nn.silu(linear(h.ref, weight("gate")));
    x = x.add(linear(gate.mul(linear(h, weight("up"))), weight("down")));
  }
  const logits = linear(norm(x, weights["norm.weight"]), weights["embed.weight"]);
  const predicting = logits.reshape([batch, length, vocabSize]).slice([], [0, length - 1]);
  // A gather here ends in a scatter of what jit has fused, which jit 0.1.25 does not know.
  const likely = np.sum(predicting.ref.mul(nn.oneHot(targets, vocabSize)), -1);
  for (const used of [cos, sin]) used.dispose();
  return np.mean(nn.logsumexp(predicting, -1).sub(likely));
}
