package awstest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// The AWS CLI accepts every task definition, and the container in it starts as the image does: with its command, which reads
// the file that the first container writes, as its user, and with its cache where the image has its volume.
func TestTaskDefinitions(t *testing.T) {
	t.Parallel()
	programs.Need(t, "aws")
	image, err := os.ReadFile("../../Dockerfile")
	must(t, err)
	files, err := filepath.Glob("../ecs/*.json")
	must(t, err)
	if len(files) != 2 {
		t.Errorf("task definitions: %v", files)
	}
	for _, file := range files {
		cmd := exec.CommandContext(t.Context(), "aws", "ecs", "register-task-definition", "--region", "eu-central-1", "--cli-input-json", "file://"+file, "--generate-cli-skeleton", "output")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
		text, err := os.ReadFile(file)
		must(t, err)
		var task struct {
			Volumes    []struct{ Name string }
			Containers []struct {
				Name, User          string
				Command, EntryPoint []string
				DependsOn           []struct{ ContainerName, Condition string }
				MountPoints         []struct {
					SourceVolume, ContainerPath string
					ReadOnly                    bool
				}
			} `json:"containerDefinitions"`
		}
		must(t, json.Unmarshal(text, &task))
		writer, mirror := task.Containers[0], task.Containers[1]
		if mirror.User != "" || mirror.Command != nil || mirror.EntryPoint != nil || mirror.DependsOn[0].ContainerName != writer.Name || mirror.DependsOn[0].Condition != "SUCCESS" {
			t.Errorf("%s: the mirror does not start as its image does, behind %s: %+v", file, writer.Name, mirror)
		}
		config := mirror.MountPoints[0].ContainerPath + "/config.yaml"
		if !strings.Contains(string(image), `"--config", "`+config+`"`) || !strings.Contains(strings.Join(writer.Command, " "), ">"+config) || mirror.MountPoints[0].SourceVolume != writer.MountPoints[0].SourceVolume {
			t.Errorf("%s: %s is not what the image reads, or not what is written", file, config)
		}
		if cache := mirror.MountPoints[1]; cache.ReadOnly || !strings.Contains(string(image), "VOLUME "+cache.ContainerPath+"\n") {
			t.Errorf("%s: %s is not the image's volume", file, cache.ContainerPath)
		}
	}
}
