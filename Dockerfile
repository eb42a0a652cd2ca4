FROM golang:1.26-bookworm AS build
ARG VERSION=devel
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ecr-mirror ./cmd/ecr-mirror \
 && install -d -m 0750 /out/state /out/tmp

FROM scratch
# The roots that verify ECR, SQS and S3.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/ecr-mirror /ecr-mirror
# A new volume takes its owner from here: the process is not root.
COPY --from=build --chown=65532:65532 /out/state /var/lib/ecr-mirror
# For demo and emulator.
COPY --from=build --chown=65532:65532 /out/tmp /tmp
USER 65532:65532
EXPOSE 5000
VOLUME /var/lib/ecr-mirror
ENTRYPOINT ["/ecr-mirror"]
CMD ["serve", "--config", "/etc/ecr-mirror/config.yaml"]
