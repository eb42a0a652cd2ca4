// Package ecrtest is an Amazon ECR emulator: the control API, the registry v2 plane, the layer host that S3 is for ECR, push
// events, an SQS that carries them, and two operations of STS. One Emulator holds any number of accounts and regions; its own
// state is in memory or in a directory. It answers as ECR does where ECR differs from other registries: what it does on purpose is in
// Quirks and in the comments of the function concerned, each with its source.
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
// Limitations: policies are those of package iam; schema 1 manifests, scanning,
// lifecycle evaluation, pull through cache rules and native replication are not run (replication configuration is stored);
// unreferenced content is never collected; SQS has no FIFO queues and no message attributes; nothing is fsynced.
package ecrtest
