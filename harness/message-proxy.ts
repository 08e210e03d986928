import { createServer, Socket } from 'node:net';
import { addressOf, listen, type Moment, urlThrough } from './proxy.ts';
import { answersAreComplete, questionIsComplete } from './wire.ts';

/** A message of a client to which the server answers. */
export interface Message {
  readonly text: string;
  /** The port from which the server sees the connection. */
  readonly port: number;
  /** Resets the connection on both sides. */
  cut(): void;
}

/** What happens at one message. The message, or the answer to it, is held until `strike` resolves. */
export interface Attack {
  /** The first message of all connections has number 1. */
  readonly number: number;
  readonly moment: Moment;
  /** Whether all other messages, of each connection, wait as long. */
  readonly holdsAll?: boolean;
  /** Called before the message is sent, at each moment. */
  arrange?(message: Message): Promise<void>;
  strike(message: Message): Promise<void>;
}

/** A proxy that counts the messages of its clients. The exchange of a password counts as part of the start message. */
export interface MessageProxy {
  readonly url: string;
  /** The texts of the messages since the last `begin`. */
  readonly messages: readonly string[];
  /** Counts from 1 again, and strikes at the next message with that number. */
  begin(attack?: Attack): void;
  stop(): Promise<void>;
}

export async function startMessageProxy(serverUrl: string): Promise<MessageProxy> {
  let messages: string[] = [];
  let attack: Attack | undefined;
  /** Resolves when messages may pass. */
  let gate = Promise.resolve();
  const sockets = new Set<Socket>();
  const target = addressOf(serverUrl);
  /** Notes a message when it may pass, and returns the attack at it. */
  const note = async (text: string): Promise<Attack | undefined> => {
    await gate;
    messages.push(text);
    const found = messages.length === attack?.number ? attack : undefined;
    if (found?.holdsAll !== true) return found;
    let open = () => {};
    gate = new Promise((resolve) => {
      open = resolve;
    });
    return { ...found, strike: (message) => found.strike(message).finally(open) };
  };
  const server = createServer((client) => {
    const upstream = new Socket().connect(target);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    }
    link(client, upstream, note);
  });
  const port = await listen(server);
  return {
    url: urlThrough(serverUrl, port),
    get messages() {
      return messages;
    },
    begin(next) {
      messages = [];
      attack = next;
    },
    stop() {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

function link(client: Socket, upstream: Socket, note: (text: string) => Promise<Attack | undefined>): void {
  /** Set while the answer to a message is held back. */
  let held: { readonly attack: Attack; readonly message: Message; answer: Buffer } | undefined;
  const cut = () => {
    client.resetAndDestroy();
    upstream.resetAndDestroy();
  };

  const toServer = async (chunk: Buffer) => {
    const text = chunk.toString('latin1');
    const attack = questionIsComplete(text.toLowerCase()) ? await note(text) : undefined;
    const message = { text, port: upstream.localPort ?? 0, cut };
    await attack?.arrange?.(message);
    if (attack?.moment === 'before') await attack.strike(message);
    if (attack?.moment === 'after') held = { attack, message, answer: Buffer.alloc(0) };
    upstream.write(chunk);
    if (attack?.moment === 'during') await attack.strike(message);
  };
  const toClient = async (chunk: Buffer) => {
    if (held === undefined) {
      client.write(chunk);
      return;
    }
    held.answer = Buffer.concat([held.answer, chunk]);
    if (!answersAreComplete(held.answer) && !asksForPassword(held.answer)) return;
    const { attack, message } = held;
    await attack.strike(message);
    held = undefined;
  };

  join(client, upstream, toServer);
  join(upstream, client, toClient);
}

/** Passes data on, one piece after another, and then the end. */
function join(source: Socket, sink: Socket, pass: (chunk: Buffer) => Promise<void>): void {
  let last = Promise.resolve();
  source.on('error', () => undefined);
  source.on('data', (chunk: Buffer) => {
    last = last.then(() => pass(chunk));
  });
  source.once('close', () => {
    last.then(() => sink.destroySoon());
  });
}

/** Whether the answer to a start message is a request of authentication, and nothing else. */
function asksForPassword(answer: Buffer): boolean {
  return answer[0] === 'R'.charCodeAt(0) && answer.length > 4 && answer.readInt32BE(1) === answer.length - 1;
}

/** The first line of a message, for people. */
export function firstLineOf(text: string): string {
  // A message begins with its type and its length.
  const words = text
    .slice(5)
    .replace(/[^ -~\n]+/g, ' ')
    .trim();
  return words.split('\n')[0]?.slice(0, 60) ?? '';
}
