import { readTokens, type Token } from './tokens.ts';

/** One change of a text. */
export interface Edit {
  readonly kind: string;
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** The words that end an operand of `and` or `or` at its level, or begin the next part of a query. */
const BOUNDARIES = new Set(
  (
    'and or where on if elsif when then else having while loop := return returning filter check default ; , ' +
    'group order limit offset for union except intersect window left right inner cross full join as select from end'
  ).split(' '),
);
const CONDITIONS = new Set(['where', 'on', 'having', 'if', 'elsif', 'while', 'when']);
const REMOVABLE = new Set(
  'perform raise insert update delete with select get execute call lock continue exit'.split(' '),
);
const BLOCKS = new Set('begin declare loop if for while return exception end case <'.split(' '));
const SHIFTED: Readonly<Record<string, string>> = { '<': '<=', '<=': '<', '>': '>=', '>=': '>' };
const SWAPPED: Readonly<Record<string, string>> = {
  and: 'or',
  or: 'and',
  min: 'max',
  max: 'min',
  least: 'greatest',
  greatest: 'least',
};

/** All changes of statements and expressions in a part of a text. */
export function editsOf(sql: string, from = 0, to = sql.length): readonly Edit[] {
  const tokens = readTokens(sql, from, to);
  const ofRange = betweens(tokens);
  const ofMessages = messages(tokens);
  const edits = tokens.flatMap((_, at) =>
    ofMessages.has(at)
      ? []
      : [
          ...editsOfWord(tokens, at, ofRange),
          ...editsOfConditions(tokens, at, ofRange),
          ...editsOfLocks(tokens, at),
          ...editsOfOrder(tokens, at),
        ],
  );
  edits.push(...removedStatements(tokens));
  const unique = new Map(edits.map((edit) => [`${edit.start} ${edit.end} ${edit.text}`, edit]));
  return [...unique.values()].sort((a, b) => a.start - b.start);
}

/** What belongs to a `raise`: its message, its hint and their values. */
function messages(tokens: readonly Token[]): ReadonlySet<number> {
  const found = new Set<number>();
  let isMessage = false;
  tokens.forEach(({ text }, at) => {
    if (text === 'raise') isMessage = true;
    if (text === ';') isMessage = false;
    if (isMessage) found.add(at);
  });
  return found;
}

/** Each `and` that belongs to a `between`. */
function betweens(tokens: readonly Token[]): ReadonlySet<number> {
  const found = new Set<number>();
  tokens.forEach(({ text, depth }, at) => {
    if (text !== 'between') return;
    found.add(
      tokens.findIndex((token, later) => later > at && token.text === 'and' && token.depth === depth),
    );
  });
  return found;
}

const replace = (kind: string, token: Token, text: string): Edit => ({
  kind,
  start: token.start,
  end: token.end,
  text,
});

function editsOfWord(tokens: readonly Token[], at: number, ofRange: ReadonlySet<number>): readonly Edit[] {
  const token = tokens[at] as Token;
  const { text } = token;
  const before = tokens[at - 1]?.text ?? '';
  const after = tokens[at + 1]?.text ?? '';
  if (text in SHIFTED && !'<>'.includes(before))
    return [replace('comparison shifted', token, SHIFTED[text] as string)];
  if (text in SWAPPED && !ofRange.has(at)) {
    if (text === 'and' || text === 'or') return [replace('and/or swapped', token, SWAPPED[text] as string)];
    return after === '(' && before !== '.'
      ? [replace('extreme swapped', token, SWAPPED[text] as string)]
      : [];
  }
  if ((text === '+' || text === '-') && /^[\w)\]]/.test(before) && !BOUNDARIES.has(before))
    return [replace('sign changed', token, text === '+' ? '-' : '+')];
  if (text === 'true' || text === 'false')
    return [replace('boolean flipped', token, text === 'true' ? 'false' : 'true')];
  if (text === 'is' && after === 'distinct') return [span('null compared', tokens, at, at + 2, '<>')];
  if (text === 'is' && after === 'not' && tokens[at + 2]?.text === 'distinct')
    return [span('null compared', tokens, at, at + 3, '=')];
  if (text === 'left' && after === 'join') return [replace('outer join made inner', token, '')];
  if (text === 'distinct' && before === 'select' && after !== 'on')
    return [replace('distinct left out', token, '')];
  return [];
}

const span = (kind: string, tokens: readonly Token[], from: number, to: number, text: string): Edit => ({
  kind,
  start: tokens[from]?.start ?? 0,
  end: tokens[to]?.end ?? 0,
  text,
});

/** Leaves a condition, or an operand of its `and` or `or`, out. */
function editsOfConditions(
  tokens: readonly Token[],
  at: number,
  ofRange: ReadonlySet<number>,
): readonly Edit[] {
  const { text, depth, inCase } = tokens[at] as Token;
  const isBoundary = (index: number) => {
    const token = tokens[index];
    if (token === undefined || token.depth < depth) return true;
    if (token.depth > depth || !BOUNDARIES.has(token.text) || ofRange.has(index)) return false;
    const isFunction = /^(left|right)$/.test(token.text) && tokens[index + 1]?.text === '(';
    return !isFunction && !(token.text === 'from' && tokens[index - 1]?.text === 'distinct');
  };
  const endOf = (start: number) => {
    let end = start;
    while (!isBoundary(end)) end += 1;
    return end - 1;
  };
  if ((text === 'and' || text === 'or') && !ofRange.has(at)) {
    let start = at;
    while (!isBoundary(start - 1)) start -= 1;
    const neutral = text === 'and' ? 'true' : 'false';
    return [
      span('condition left out', tokens, start, at - 1, neutral),
      span('condition left out', tokens, at + 1, endOf(at + 1), neutral),
    ];
  }
  if (!CONDITIONS.has(text)) return [];
  if (text === 'on' && tokens[at + 1]?.text === 'conflict') return [];
  if (text === 'if' && /^(end|table|function|exists)$/.test(tokens[at - 1]?.text ?? '')) return [];
  if (text === 'when' && !inCase) return [];
  // The whole condition, up to "then" and so on.
  let end = at + 1;
  while (!isBoundary(end) || /^(and|or)$/.test(tokens[end]?.text ?? '')) end += 1;
  if (end === at + 1) return [];
  const whole = (kind: string, value: string) => span(kind, tokens, at + 1, end - 1, value);
  if (/^(where|on|having)$/.test(text)) return [whole('condition left out', 'true')];
  return [
    whole('branch left out', 'false'),
    ...(text === 'while' ? [] : [whole('branch always taken', 'true')]),
  ];
}

function editsOfLocks(tokens: readonly Token[], at: number): readonly Edit[] {
  const token = tokens[at] as Token;
  const word = (offset: number) => tokens[at + offset]?.text ?? '';
  if (token.text === 'pg_advisory_xact_lock')
    return [replace('lock weakened', token, 'pg_advisory_xact_lock_shared')];
  if (token.text === 'skip' && word(1) === 'locked')
    return [span('skip locked left out', tokens, at, at + 1, '')];
  if (token.text !== 'for') return [];
  const strength = /^(update|share|no key update|key share)/.exec(`${word(1)} ${word(2)} ${word(3)}`)?.[0];
  if (strength === undefined) return [];
  let end = at + strength.split(' ').length;
  const last = end;
  while (/^(of|skip|locked|nowait|\w)$/.test(tokens[end + 1]?.text ?? '')) end += 1;
  const weaker = strength.endsWith('update')
    ? 'for share'
    : strength === 'share'
      ? 'for key share'
      : undefined;
  return [
    span('lock left out', tokens, at, end, ''),
    ...(weaker === undefined ? [] : [span('lock weakened', tokens, at, last, weaker)]),
  ];
}

function editsOfOrder(tokens: readonly Token[], at: number): readonly Edit[] {
  const token = tokens[at] as Token;
  const endOf = (start: number) =>
    tokens.findIndex(
      (other, index) =>
        index >= start &&
        (other.depth < token.depth ||
          (other.depth === token.depth &&
            /^(,|;|\$\w*\$|limit|for|loop|offset|union|rows|range|desc|asc|nulls)$/.test(other.text))),
    );
  if (token.text === 'order' && tokens[at + 1]?.text === 'by') {
    const end = endOf(at + 2);
    if (end < 0) return [];
    const next = tokens[end] as Token;
    if (next.text === 'desc') return [replace('order changed', next, '')];
    const start = (tokens[end - 1] as Token).end;
    return [{ kind: 'order changed', start, end: start, text: ' desc' }];
  }
  if (token.text === 'limit' && !/^[),;:.]/.test(tokens[at + 1]?.text ?? ')')) {
    const end = endOf(at + 1);
    return end < 0 || isOneRow(tokens, at) ? [] : [span('limit left out', tokens, at, end - 1, '')];
  }
  return [];
}

/** Whether a limit ends a statement with "into", which takes the first row anyway. */
function isOneRow(tokens: readonly Token[], limit: number): boolean {
  if (tokens[limit + 1]?.text !== '1' || tokens[limit + 2]?.text !== ';') return false;
  let start = limit;
  while (start > 0 && !/^(;|then|else|begin|loop)$/.test(tokens[start - 1]?.text ?? '')) start -= 1;
  const words = tokens.slice(start, limit).map(({ text }) => text);
  return words.includes('into') && !words.includes('strict') && !words.includes('return');
}

/** Leaves out each statement of PL/pgSQL that declares, returns and controls nothing. */
function removedStatements(tokens: readonly Token[]): readonly Edit[] {
  const edits: Edit[] = [];
  let isDeclaring = false;
  let isCode = false;
  tokens.forEach((token, at) => {
    if (token.text === 'declare') isDeclaring = true;
    if (token.text === 'begin') {
      isDeclaring = false;
      isCode = true;
    }
    const before = tokens[at - 1];
    if (!isCode || isDeclaring || token.depth > 0 || before === undefined) return;
    if (!/^(;|then|else|begin|loop)$/.test(before.text) || before.inCase) return;
    const end = tokens.findIndex((other, later) => later >= at && other.text === ';' && other.depth === 0);
    const isQuery = token.text === 'return' && /^(query|next)$/.test(tokens[at + 1]?.text ?? '');
    const isAssignment = tokens.slice(at, at + 6).findIndex(({ text }) => text === ':=' || text === ';');
    if (
      REMOVABLE.has(token.text) ||
      isQuery ||
      (isAssignment > 0 && tokens[at + isAssignment]?.text === ':=' && !BLOCKS.has(token.text))
    )
      edits.push(
        span(token.text === 'raise' ? 'refusal left out' : 'statement left out', tokens, at, end, 'null;'),
      );
  });
  return edits;
}
