# syntax=docker/dockerfile:1
#
#   docker build -t partnersync --build-arg VERSION=1.0.0 .
#
# Images that it is made from are named by major and minor version; whoever wants the same bytes each time writes their digests.
#
# The image holds one static binary, certificates and nothing else: no shell, no package, no Postgres. It runs as nobody, and
# needs no writable file unless `receiver.spool` names a directory.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=""
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/partnersync ./cmd/partnersync

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/partnersync /usr/local/bin/partnersync
USER 65532:65532
WORKDIR /etc/partnersync
EXPOSE 8080 8081
ENTRYPOINT ["/usr/local/bin/partnersync"]
CMD ["run"]
