/** A property of an interface. */
export interface Field {
  readonly name: string;
  readonly type: string;
  readonly optional?: boolean;
  readonly readonly?: boolean;
  readonly comment?: string | null;
}

/** The text of an exported interface. */
export function declare(name: string, comment: string, fields: readonly Field[]): string {
  const lines = fields.map((field) => {
    const property = `${field.readonly ? 'readonly ' : ''}${propertyName(field.name)}${field.optional ? '?' : ''}`;
    return `${document(field.comment ?? '', '  ')}  ${property}: ${field.type};`;
  });
  return `${document(comment, '')}export interface ${name} {\n${lines.join('\n')}\n}`;
}

/** The text of a docstring in one line, or nothing. */
export function document(comment: string, indent: string): string {
  const text = comment.replaceAll('*/', '* /').replace(/\s+/g, ' ').trim();
  return text === '' ? '' : `${indent}/** ${text} */\n`;
}

export function propertyName(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : literal(name);
}

export function literal(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

/** Types that include null. */
const HOLDS_NULL = ['JsonValue', 'JsonInput'];

export function orNull(type: string, nullable: boolean): string {
  const takesNull = type === 'unknown' || type.split(' | ').some((name) => HOLDS_NULL.includes(name));
  return nullable && !takesNull ? `${type} | null` : type;
}

const EXPORTED = /^export (?:interface|type|function) (\w+)/m;

/** The exported names of declarations, in order. */
export function exportedNames(declarations: readonly string[]): readonly string[] {
  return declarations.flatMap((text) => EXPORTED.exec(text)?.[1] ?? []);
}
