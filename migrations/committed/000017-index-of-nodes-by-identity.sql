--! Previous: sha1:40a4d4bb4c49f87eb6480f490a0ec3ab412216c6
--! Hash: sha1:43cec307910ccd79cb3b71b4dfa1bd4698462e62
--! Message: Index of nodes by identity

--! no-transaction
-- Nodes by identity. The index has eight bytes of each identity, as for checksums.
create index concurrently if not exists nodes_backend_identity_idx
  on filestore.nodes (hashtextextended(backend_identity, 0))
  where backend_identity is not null;
