/** Rows of features, however they are stored. */
export interface FeatureRows {
  readonly count: number;
  /** Features of a row. */
  readonly width: number;
  /** The row's product with weights (width). */
  dot(row: number, weights: Float64Array): number;
  /** Adds a multiple of the row to `target` (width). */
  addTo(target: Float64Array, row: number, factor: number): void;
}

/** A linear classifier: its log-odds are weights · features + bias. */
export interface LinearClassifier {
  readonly weights: Float64Array;
  readonly bias: number;
}

export interface LogisticOptions {
  /** λ in the penalty λ/2 · |weights|²; 1 / rows is the C = 1 of other packages. */
  readonly l2: number;
  /** The largest slope of the loss at which the fit ends. */
  readonly tolerance?: number;
  readonly maxIterations?: number;
}

/** Pairs of steps that L-BFGS keeps. */
const MEMORY = 10;
/** The part of the promised decrease that a step must bring (Nocedal and Wright 2006, eq. 3.4). */
const ARMIJO = 1e-4;
const MOST_HALVINGS = 40;

/**
 * Logistic regression with an ℓ2 penalty, both classes weighing the same: the mean cross-entropy in nats of each
 * class, halved, plus the penalty. The loss is strictly convex, so that L-BFGS (Nocedal 1980) finds its one minimum
 * and there is no learning rate to choose.
 * @param labels 1 for the rows of the class whose log-odds are wanted, else 0
 * @throws RangeError where a class has no row
 */
export function fitLogistic(
  rows: FeatureRows,
  labels: Uint8Array,
  { l2, tolerance = 1e-6, maxIterations = 500 }: LogisticOptions,
): LinearClassifier {
  const positives = labels.reduce((sum, label) => sum + label, 0);
  if (positives === 0 || positives === labels.length) {
    throw new RangeError("logistic regression: there must be rows of both classes");
  }
  const loss = balancedLoss(rows, labels, positives, l2);
  const size = rows.width + 1;
  let point = new Float64Array(size);
  let gradient = new Float64Array(size);
  let value = loss(point, gradient);
  const history: Step[] = [];
  for (let i = 0; i < maxIterations && largest(gradient) > tolerance; i++) {
    const direction = descent(gradient, history);
    const slope = dot(direction, gradient);
    // The first direction is the gradient, whose length says nothing of the step; the others are to scale.
    let step = history.length === 0 ? 1 / Math.max(1, Math.sqrt(-slope)) : 1;
    const nextGradient = new Float64Array(size);
    let next = moved(point, direction, step);
    let nextValue = loss(next, nextGradient);
    for (let k = 0; nextValue > value + ARMIJO * step * slope; k++) {
      // Rounding leaves nothing to gain.
      if (k === MOST_HALVINGS) return classifier(point);
      step /= 2;
      next = moved(point, direction, step);
      nextValue = loss(next, nextGradient);
    }
    const s = next.map((x, j) => x - (point[j] as number));
    const y = nextGradient.map((x, j) => x - (gradient[j] as number));
    const curvature = dot(s, y);
    if (curvature > 0) history.push({ s, y, curvature });
    if (history.length > MEMORY) history.shift();
    [point, gradient, value] = [next, nextGradient, nextValue];
  }
  return classifier(point);
}

/** A move of the point and of the gradient, and their product. */
interface Step {
  readonly s: Float64Array;
  readonly y: Float64Array;
  readonly curvature: number;
}

/** The loss at a point (weights, then the bias); writes its gradient. */
function balancedLoss(rows: FeatureRows, labels: Uint8Array, positives: number, l2: number) {
  const shares = [0.5 / (labels.length - positives), 0.5 / positives] as const;
  return (point: Float64Array, gradient: Float64Array): number => {
    const weights = point.subarray(0, rows.width);
    const slopes = gradient.subarray(0, rows.width);
    gradient.fill(0);
    let value = 0;
    let biasSlope = 0;
    for (let i = 0; i < rows.count; i++) {
      const label = labels[i] as 0 | 1;
      const sign = label === 1 ? 1 : -1;
      const margin = sign * (rows.dot(i, weights) + (point[rows.width] as number));
      // ln(1 + e^-m), without overflow.
      value += shares[label] * (Math.max(0, -margin) + Math.log1p(Math.exp(-Math.abs(margin))));
      const slope = (-sign * shares[label]) / (1 + Math.exp(margin));
      biasSlope += slope;
      rows.addTo(slopes, i, slope);
    }
    gradient[rows.width] = biasSlope;
    for (let j = 0; j < rows.width; j++) {
      const weight = weights[j] as number;
      value += (l2 / 2) * weight * weight;
      slopes[j] = (slopes[j] as number) + l2 * weight;
    }
    return value;
  };
}

/** The two-loop recursion: minus the gradient, times an estimate of the inverse of the second derivatives. */
function descent(gradient: Float64Array, history: readonly Step[]): Float64Array {
  const direction = gradient.map((x) => -x);
  const shares = new Float64Array(history.length);
  for (let i = history.length - 1; i >= 0; i--) {
    const { s, y, curvature } = history[i] as Step;
    shares[i] = dot(s, direction) / curvature;
    add(direction, y, -(shares[i] as number));
  }
  const last = history.at(-1);
  if (last) {
    const scale = last.curvature / dot(last.y, last.y);
    for (let j = 0; j < direction.length; j++) direction[j] = (direction[j] as number) * scale;
  }
  history.forEach(({ s, y, curvature }, i) => {
    add(direction, s, (shares[i] as number) - dot(y, direction) / curvature);
  });
  return direction;
}

function classifier(point: Float64Array): LinearClassifier {
  return { weights: point.slice(0, -1), bias: point.at(-1) as number };
}

function moved(point: Float64Array, direction: Float64Array, step: number): Float64Array<ArrayBuffer> {
  return Float64Array.from(point, (x, j) => x + step * (direction[j] as number));
}

function add(target: Float64Array, values: Float64Array, factor: number): void {
  for (let j = 0; j < target.length; j++) target[j] = (target[j] as number) + factor * (values[j] as number);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let j = 0; j < a.length; j++) sum += (a[j] as number) * (b[j] as number);
  return sum;
}

function largest(values: Float64Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}
