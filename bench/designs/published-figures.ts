/** Figures that others published, measured on their machines: an order of magnitude, and nothing to subtract from. */
export interface PublishedFigure {
  readonly system: string;
  readonly what: string;
  readonly figure: string;
  /** Key of the operation here that is nearest. */
  readonly nearest: string;
}

export const PUBLISHED: readonly PublishedFigure[] = [
  {
    system: 'dCache Chimera',
    what: 'creates in one directory, strong consistency of the directory',
    figure: '244/s',
    nearest: 'create8oneDirectory',
  },
  {
    system: 'dCache Chimera',
    what: 'creates in one directory, lazy consistency',
    figure: '1,263/s',
    nearest: 'create8oneDirectory',
  },
  {
    system: 'JuiceFS on MySQL',
    what: 'creates with 12 processes',
    figure: '1,327/s',
    nearest: 'create8spread',
  },
  {
    system: 'JuiceFS on MySQL',
    what: 'clone of a tree, before it was batched',
    figure: '218 entries/s',
    nearest: 'copy',
  },
  {
    system: 'supabase/storage',
    what: 'a listing at 5 million objects',
    figure: 'under 100 ms',
    nearest: 'deepPage',
  },
];
