/** PostgreSQL may say so once while a publication is dropped. docs/scaling.md: "repeat its transaction". */
export function isOfDroppedPublication(error: unknown): boolean {
  return error instanceof Error && /^cache lookup failed for publication [0-9]+$/.test(error.message);
}
