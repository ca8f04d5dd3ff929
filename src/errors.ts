/** A kernel, shader or device that cannot do what was asked of it. */
export class BackendError extends Error {
  override name = "BackendError";
}

/** A file that is missing, malformed, or at odds with what its own header says. */
export class FormatError extends Error {
  override name = "FormatError";

  /** @param file the file, or its best description where there is no path */
  constructor(
    readonly file: string,
    problem: string,
    options?: ErrorOptions,
  ) {
    super(`${file}: ${problem}`, options);
  }
}

/** A model architecture, or a field of its configuration, that this engine does not implement. */
export class UnsupportedError extends Error {
  override name = "UnsupportedError";
}

/** Training that left the numbers it can work with: names the step, the term and the batch. */
export class DivergenceError extends Error {
  override name = "DivergenceError";
}
