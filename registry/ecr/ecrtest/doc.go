// Package ecrtest is an Amazon ECR emulator: the whole control API, the registry v2 plane, the layer host that S3 is for ECR, ECR's
// own replication, backfills, pull through cache rules, creation templates and lifecycle policies, EventBridge rules with SQS and HTTP
// targets, an SQS that carries events, two operations of STS, and IAM in front of all of them. One Emulator holds any number of
// accounts and regions; its state is in memory or in a directory. It answers as ECR does where ECR differs from other registries:
// what it does on purpose is in docs/emulator.md, in Quirks and in the comments of the function concerned, each with its source.
//
//	emu, err := ecrtest.New(ecrtest.Options{})
//	err = emu.Start(ecrtest.Listen{})              // loopback listeners
//	defer emu.Close()
//	reg := emu.Registry("111122223333", "us-west-2")
//	cfg := emu.Config("111122223333", "us-west-2") // for ecr.NewFromConfig and sqs.NewFromConfig
//	host := emu.RegistryHost("111122223333", "us-west-2")
//
// Tests use Calls and LayerReads for exact counts, and Fault, Registry.SetDown, Registry.SetUnreachable and OnEvent to break
// things.
//
// Limitations: policies are those of package iam; there are no schema 1 manifests; nothing is scanned or signed, whatever is
// configured; lifecycle policies are previewed, and applied only by ApplyLifecycle; a pull through a cache rule imports whole images
// and no referrers; unreferenced content is never collected; an archived image is back at once; SQS has no FIFO queues and no message
// attributes; queues, event rules, principals and backfills end with the process; nothing is fsynced.
package ecrtest
