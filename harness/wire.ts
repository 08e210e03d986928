const BACKEND_KEY_DATA = 'K'.charCodeAt(0);
const PASSWORD = 'p';
const READY_FOR_QUERY = 'Z'.charCodeAt(0);

/** Length of a message's type and of its length field, which counts itself. */
const HEADER = 5;

/** The code with which a client requests TLS, instead of a protocol version. The start message follows. */
const TLS_REQUEST = 80_877_103;

/**
 * Reads the messages of a client, given in pieces, and returns the types of the complete
 * ones: `Q` for a query, `X` for the end. The start message and passwords belong to the handshake
 * and are left out. TLS cannot be read.
 */
export function readMessageTypes(): (chunk: Buffer) => readonly string[] {
  let pending = Buffer.alloc(0);
  let begun = false;
  return (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    const types: string[] = [];
    for (;;) {
      const lengthAt = begun ? 1 : 0;
      if (pending.length < lengthAt + 4) break;
      const length = lengthAt + pending.readInt32BE(lengthAt);
      if (pending.length < length) break;
      if (begun) types.push(String.fromCharCode(pending[0] ?? 0));
      else begun = pending.readInt32BE(4) !== TLS_REQUEST;
      pending = pending.subarray(length);
    }
    return types.filter((type) => type !== PASSWORD);
  };
}

/**
 * Whether the data of a client ends where the server acts: with the zero at the end of a query, or with Sync.
 * The data is in lower case.
 */
export function questionIsComplete(heard: string): boolean {
  return heard.endsWith('\0') || heard.endsWith('s\0\0\0\x04');
}

/** Whether a server's answers end with ReadyForQuery, after which it waits for the client. */
export function answersAreComplete(answers: Buffer): boolean {
  return (
    answers.length >= HEADER + 1 &&
    answers.at(-HEADER - 1) === READY_FOR_QUERY &&
    answers.readInt32BE(answers.length - HEADER) === HEADER
  );
}

/** Complete answers, without the ReadyForQuery at their end and that message. */
export function splitReady(answers: Buffer): readonly [Buffer, Buffer] {
  return [answers.subarray(0, -HEADER - 1), answers.subarray(-HEADER - 1)];
}

/**
 * Rewrites the process id in the BackendKeyData of a server's answers, given in pieces, and
 * returns the data to pass on. TLS cannot be rewritten.
 */
export function rewriteProcessId(): (chunk: Buffer) => Buffer {
  let pending = Buffer.alloc(0);
  let begun = false;
  let done = false;
  return (chunk) => {
    if (done) return chunk;
    pending = Buffer.concat([pending, chunk]);
    const passed: Buffer[] = [];
    const pass = (length: number) => {
      passed.push(pending.subarray(0, length));
      pending = pending.subarray(length);
    };
    // A single byte says whether TLS follows. No first message begins with it.
    if (!begun && pending[0] === 'S'.charCodeAt(0)) done = true;
    while (!begun && !done && pending[0] === 'N'.charCodeAt(0)) pass(1);
    while (!done && pending.length >= HEADER) {
      begun = true;
      const length = 1 + pending.readInt32BE(1);
      if (pending.length < length) break;
      if (pending[0] === BACKEND_KEY_DATA) {
        // Larger than any real process id, so that it never is that of another process.
        pending.writeInt32BE(pending.readInt32BE(HEADER) ^ 0x40000000, HEADER);
      }
      done = pending[0] === BACKEND_KEY_DATA;
      pass(length);
    }
    if (done) pass(pending.length);
    return Buffer.concat(passed);
  };
}
