/** `1 migration`, `2 migrations`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

/** Milliseconds as seconds, such as `0.5 s`. */
export function seconds(milliseconds: number): string {
  return `${milliseconds < 9_950 ? Math.round(milliseconds / 100) / 10 : Math.round(milliseconds / 1000)} s`;
}

export function capitalized(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}

/** Names of files in their order: a few, or the first and the last of many. */
export function listFiles(names: readonly string[]): string {
  return names.length <= 3 ? names.join(', ') : `${names[0]} to ${names.at(-1)}`;
}

/** Adds a full stop, unless the text already ends a sentence. */
export function asSentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** Whether a message may quote an input: a mistyped word or number. Anything else may hold a secret. */
export function isQuotable(text: string): boolean {
  return /^[a-z-]{1,16}$|^[-+]?\d[\d.,_e]{0,9} ?[a-z%]{0,3}$/i.test(text);
}

/** The message of what was thrown, which may be any value, and also one that has no text. */
export function messageOfError(thrown: unknown): string {
  try {
    return thrown instanceof Error ? thrown.message : String(thrown);
  } catch {
    return 'a value without a text was thrown';
  }
}

/** That a run was told to stop, and by which signal. */
export function describeStop({ reason }: AbortSignal): string {
  const why = reason instanceof Error && reason.name !== 'AbortError' ? ` (${reason.message})` : '';
  return `Stopped on request${why}.`;
}

/** Sentences of a message, without those that do not apply. */
export function paragraph(...sentences: readonly (string | false | undefined)[]): string {
  return sentences.filter(Boolean).join(' ');
}

/** Number of blank lines at the beginning. */
export function blankLinesBefore(text: string): number {
  return text.slice(0, text.search(/\S|$/)).split('\n').length - 1;
}

/** For sorting by code points, so that the order does not depend on a locale. */
export function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Text from a database as a message shows it, on one line. Names of roles and objects, and messages of the
 * server, may have line feeds, escape sequences and other characters that a terminal executes or does not
 * show.
 */
export function printable(text: string): string {
  return text.replace(/(?!\t)[\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = (character.codePointAt(0) ?? 0).toString(16);
    return code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, '0')}`;
  });
}

/** The same for text of several lines. No line can look like the beginning of another text. */
export function printableLines(text: string): string {
  return text
    .split('\n')
    .map(printable)
    .join('\n')
    .replace(/\n(?=\S)/g, '\n  ');
}
