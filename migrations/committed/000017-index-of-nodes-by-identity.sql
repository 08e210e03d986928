--! Previous: sha1:cf4f4a49ccb39214e7d6a5684955d905c5cfa79f
--! Hash: sha1:d96bc0c3bc854df7ab38104518b5df66d0eef63a
--! Message: Index of nodes by identity

--! no-transaction
-- Nodes by the identity of their object. With eight bytes per identity, as for checksums.
create index concurrently if not exists nodes_backend_identity_idx
  on filestore.nodes (hashtextextended(backend_identity, 0))
  where backend_identity is not null;
