/** The levels of `filestore.grant_access`, from fewest to most rights. Each includes those before it. */
export const ACCESS_LEVELS = ['reader', 'service', 'operator'] as const;
export type AccessLevel = (typeof ACCESS_LEVELS)[number];
