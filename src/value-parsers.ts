/** Turns the text of a value, as the server sends it, into the value in JavaScript. */
export type ValueParser = (text: string) => unknown;

/** What pg takes as `types`, for a client or for one statement. */
export interface ValueTypes {
  getTypeParser(oid: number, format?: string): ValueParser;
}

/**
 * The parsers of all types that `@apphub/filestore/rows` describes. Those of pg are shared by the process:
 * after any library has called `types.setTypeParser(20, Number)`, rows would not have the types that they
 * declare.
 * @param oid The type in `pg_type`. The server sends a value of a domain with the base type of the domain.
 * @returns undefined for any other type.
 */
export function parserOf(oid: number): ValueParser | undefined {
  return PARSERS.get(oid);
}

/** The types that typed calls give to pg with each statement. Other types stay text. */
export const ROW_TYPES: ValueTypes = Object.freeze({
  getTypeParser: (oid: number, format = 'text') =>
    format === 'text' ? (parserOf(oid) ?? String) : refuseBinary,
});

/** In a parser, because pg passes its errors to the caller of the query. */
function refuseBinary(): never {
  throw new TypeError(
    'A typed call got a value in binary form. Give it a client of pg whose option "binary" is not set.',
  );
}

/** Each type with the type of its arrays, by the fixed ids of the server's catalog. */
const TYPES: readonly (readonly [name: string, oid: number, arrayOid: number, parse: ValueParser])[] = [
  ['boolean', 16, 1000, (text) => text === 't'],
  ['bytea', 17, 1001, parseBytes],
  ['name', 19, 1003, String],
  // A bigint or numeric may be outside of the range of numbers in JavaScript.
  ['bigint', 20, 1016, String],
  ['smallint', 21, 1005, Number],
  ['integer', 23, 1007, Number],
  ['text', 25, 1009, String],
  ['oid', 26, 1028, Number],
  ['json', 114, 199, (text) => JSON.parse(text)],
  ['real', 700, 1021, Number],
  ['double precision', 701, 1022, Number],
  ['date', 1082, 1182, parseMoment],
  ['timestamp without time zone', 1114, 1115, parseMoment],
  ['timestamp with time zone', 1184, 1185, parseMoment],
  ['numeric', 1700, 1231, String],
  ['uuid', 2950, 2951, String],
  ['jsonb', 3802, 3807, (text) => JSON.parse(text)],
  ['xid8', 5069, 271, String],
];

const VOID_OID = 2278;

const PARSERS: ReadonlyMap<number, ValueParser> = new Map([
  [VOID_OID, String],
  ...TYPES.flatMap(([, oid, arrayOid, parse]): [number, ValueParser][] => [
    [oid, parse],
    [arrayOid, (text) => parseArray(text, parse)],
  ]),
]);

const ARRAY_TOKEN = /"((?:[^"\\]+|\\.)*)"|[{}]|[^{},"]+/gs;

/** An array such as `{1,NULL,"a \"b\""}`, also of arrays, or with a lower bound, as in `[0:1]={1,2}`. */
function parseArray(text: string, parse: ValueParser): unknown {
  const whole: unknown[] = [];
  const open = [whole];
  for (const [token, quoted] of text.slice(text.indexOf('{')).matchAll(ARRAY_TOKEN)) {
    if (token === '}') open.pop();
    else if (token === '{') {
      const inner: unknown[] = [];
      open.at(-1)?.push(inner);
      open.push(inner);
    } else if (quoted !== undefined) open.at(-1)?.push(parse(quoted.replaceAll(/\\(.)/gs, '$1')));
    else open.at(-1)?.push(token === 'NULL' ? null : parse(token));
  }
  return whole[0];
}

const MOMENT = new RegExp(
  String.raw`^(?<year>\d{4,})-(?<month>\d\d)-(?<day>\d\d)` +
    String.raw`(?: (?<hour>\d\d):(?<minute>\d\d):(?<second>\d\d)(?:\.(?<fraction>\d+))?` +
    String.raw`(?<zone>[+-]\d\d(?::\d\d){0,2})?)?(?<before> BC)?$`,
);

/** A moment in the ISO format. Without a zone, it is local time, as in pg. JavaScript keeps milliseconds. */
function parseMoment(text: string): Date | number {
  if (text === 'infinity' || text === '-infinity') return Number(text.replace('i', 'I'));
  const parts = MOMENT.exec(text)?.groups;
  if (parts === undefined) {
    throw new TypeError('The server sent a moment that is not in the ISO format. Set its DateStyle to ISO.');
  }
  const part = (name: string) => Number(parts[name] ?? 0);
  const year = parts.before === undefined ? part('year') : 1 - part('year');
  const milliseconds = Number((parts.fraction ?? '').padEnd(3, '0').slice(0, 3));
  const time = [part('hour'), part('minute'), part('second'), milliseconds] as const;
  const moment = new Date(0);
  if (parts.zone === undefined) {
    // Setters, because the constructor takes the year 70 for 1970.
    moment.setFullYear(year, part('month') - 1, part('day'));
    moment.setHours(...time);
    return moment;
  }
  moment.setUTCFullYear(year, part('month') - 1, part('day'));
  moment.setUTCHours(...time);
  return new Date(moment.getTime() - offsetOf(parts.zone));
}

/** Milliseconds of a zone such as `+01` or `-05:53:28`. */
function offsetOf(zone: string): number {
  const [hours = 0, minutes = 0, seconds = 0] = zone.slice(1).split(':').map(Number);
  return (zone.startsWith('-') ? -1000 : 1000) * (hours * 3600 + minutes * 60 + seconds);
}

/** Bytes in either form of `bytea_output`: `\x0aff`, or ASCII with `\\` and `\377`. */
function parseBytes(text: string): Uint8Array {
  if (text.startsWith('\\x')) return Buffer.from(text.slice(2), 'hex');
  const bytes = text.replaceAll(/\\(?:\\|([0-7]{3}))/g, (_, octal?: string) =>
    octal === undefined ? '\\' : String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(bytes, 'latin1');
}
