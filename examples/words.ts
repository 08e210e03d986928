/** A path as it can be printed: a control character could change what the terminal shows. */
export function plain(path: string): string {
  return path.replace(
    /\p{Cc}/gu,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

/** A number with its noun: "1 file", "12,000 entries". */
export function count(
  number: number | string,
  one: string,
  many = one.replace(/y$/, 'ie').concat('s'),
): string {
  return `${Number(number).toLocaleString('en')} ${Number(number) === 1 ? one : many}`;
}

/** A size as `du -h` prints it: "512 B", "1.5 KiB". */
export function size(bytes: string): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let value = Number(bytes);
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
