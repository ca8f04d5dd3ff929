import { FormatError } from "../errors.js";
import { messageOf } from "./json.js";

/** What a server says of a file. */
export interface Served {
  /** In bytes; null where the server does not say. */
  readonly size: number | null;
  /** Changes with the content: the ETag, else the time of the last change; null where the server has neither. */
  readonly tag: string | null;
}

/** A server that was not reached, or a connection that broke: the file itself may be as it was. */
export class ConnectionError extends FormatError {}

/**
 * Fetches a file, or the part of it from `first` to `last`.
 * @returns undefined where the server has no such file
 * @throws ConnectionError where no answer came, FormatError for one that is no success; the signal's reason
 */
export async function fetchFile(
  url: string,
  { first, last, signal }: { first?: number; last?: number; signal?: AbortSignal | undefined } = {},
): Promise<Response | undefined> {
  // Of the headers that ask for a part only this one is allowed across origins without a question before.
  const headers: HeadersInit = first === undefined ? {} : { range: `bytes=${first}-${last ?? ""}` };
  // The browser's own cache would keep gigabytes a second time, and answers with parts that it makes up.
  const response = await fetch(url, { headers, cache: "no-store", ...(signal && { signal }) }).catch(
    (cause: unknown) => {
      signal?.throwIfAborted();
      throw new ConnectionError(url, `cannot be fetched: ${reasonOf(cause)}`, { cause });
    },
  );
  if (response.ok) return response;
  await response.body?.cancel();
  if (response.status === 404 || response.status === 410) return undefined;
  // An empty file has no parts, nor has one that is all there a rest: the whole tells.
  if (response.status === 416 && first !== undefined) return fetchFile(url, { signal });
  throw new FormatError(
    url,
    `cannot be fetched: the server answers ${response.status} ${response.statusText}`,
  );
}

/** What an answer says of the whole file. */
export function servedBy({ status, headers }: Response): Served {
  const range = /^bytes (?:\d+-\d+|\*)\/(\d+)$/.exec(headers.get("content-range") ?? "")?.[1];
  // The length of a compressed answer is not that of the file.
  const length = headers.has("content-encoding") ? null : headers.get("content-length");
  const whole = status === 200 ? length : null;
  const size = range ?? whole;
  return {
    size: size === null ? null : Number(size),
    tag: headers.get("etag") ?? headers.get("last-modified"),
  };
}

/** The pieces of an answer's body as they come. Throws ConnectionError where it breaks off. */
export async function* bodyOf(
  response: Response,
  url: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((cause: unknown) => {
        signal?.throwIfAborted();
        throw new ConnectionError(url, `broke off: ${reasonOf(cause)}`, { cause });
      });
      if (done) return;
      yield value as Uint8Array<ArrayBuffer>;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** In Node the reason of a failed fetch is the cause of its error. */
function reasonOf(error: unknown): string {
  return messageOf(error instanceof Error && error.cause instanceof Error ? error.cause : error);
}
