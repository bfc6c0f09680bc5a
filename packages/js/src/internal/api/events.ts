/** Server-Sent Events, out of the body of an answer. https://html.spec.whatwg.org/multipage/server-sent-events.html */

/** One block of the stream. */
export interface ServerEvent {
  /** `message`, where the stream does not say. */
  type: string;
  /** Empty where the block has none: then it is no event, and only its `id` counts. */
  data: string;
  /** The last one that was told, in this block or in an earlier one. */
  id: string;
  /** Milliseconds to wait before the stream is asked for again, where the block says so. */
  retry: number | undefined;
}

/** What the text of a body says, line by line: all of its blocks, also those without data. */
export async function* events(
  body: AsyncIterable<Uint8Array>,
  id = "",
): AsyncGenerator<ServerEvent> {
  let block = { type: "message", data: [] as string[], retry: undefined as number | undefined };
  let seen = id;
  for await (const line of lines(body)) {
    if (line === "") {
      yield { ...block, data: block.data.join("\n"), id: seen };
      block = { type: "message", data: [], retry: undefined };
      continue;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") block.type = value;
    else if (name === "data") block.data.push(value);
    else if (name === "id" && !value.includes("\0")) seen = value;
    else if (name === "retry" && /^\d+$/.test(value)) block.retry = Number(value);
  }
}

/** The lines of a body, without their ends; what follows the last end is no line of a stream. */
export async function* lines(
  body: AsyncIterable<Uint8Array>,
  options: { last?: boolean } = {},
): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of body) {
    const parts = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    for (const part of parts) yield part.replace(/\r$/, "");
  }
  if (options.last && rest + decoder.decode() !== "") yield rest;
}
