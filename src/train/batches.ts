/** What training draws its batches from, and can take up again where it stood. */
export interface BatchSource<Batch> {
  /** The next batch. All that is random about a step is drawn here, so that a resumed run draws it again. */
  next(): Batch;
  /**
   * Where the source stands: plain JSON, which another source of the same data and options goes on from; null
   * where there is nothing to say.
   */
  state: unknown;
  /** The examples of a batch, for messages, as in `harmful examples 3, 17, counted from 0`. */
  describe?(batch: Batch): string;
}
