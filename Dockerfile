# The image that migrates: what `npm pack` packs, the run-time dependencies of the lock file, and nothing else.
# test/image.slow.test.ts also runs these steps without a container engine. So the paths in RUN are relative.

FROM node:24-alpine AS build
WORKDIR /source
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm pack
# Unpacks the folder `package`. npm sets modes only when it installs: all can read, and commands can be executed.
RUN tar -xzf *.tgz && cp package-lock.json package
RUN chmod -R a+rX package && chmod +x package/dist/cli.js
RUN cd package && npm ci --omit=dev --ignore-scripts

FROM node:24-alpine
ENV NODE_ENV=production
COPY --from=build /source/package /filestore
WORKDIR /usr/local/bin
RUN ln -s ../../../filestore/dist/cli.js filestore-db
WORKDIR /filestore
# The user `node`, as a number, by which Kubernetes knows that it is not root.
USER 1000:1000
ENTRYPOINT ["filestore-db"]
CMD ["migrate"]
