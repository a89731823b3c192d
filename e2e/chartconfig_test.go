package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestChartConfigurations: chatxray check takes the configuration of every pod of the chart's examples, with the environment that the pod has.
func TestChartConfigurations(t *testing.T) {
	bin := built(t)
	goldens, err := filepath.Glob(filepath.Join(root, "charts/test/testdata/*.golden.yaml"))
	if err != nil || len(goldens) < 5 {
		t.Fatalf("%d rendered examples (%v); go test -update in charts/test writes them", len(goldens), err)
	}
	secrets := map[string]string{"CHATXRAY_TOKEN": "0123456789abcdef", "CHATXRAY_REDIS_URL": "rediss://user:secret@redis.data.svc:6379/0",
		"CHATXRAY_INDEX_URL": "postgresql://app:secret@index-rw.data:5432/app"}
	for _, golden := range goldens {
		b, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(b, []byte("\n---\n")) {
			var config struct {
				Kind     string
				Metadata struct{ Name string }
				Data     map[string]string
			}
			if err := yaml.Unmarshal(append(doc, '\n'), &config); err != nil {
				t.Fatal(err)
			}
			text, ok := config.Data["config.yaml"]
			if !ok {
				continue
			}
			t.Run(strings.TrimSuffix(filepath.Base(golden), ".golden.yaml")+" "+config.Metadata.Name, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "config.yaml")
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(bin, "check", "--config", file)
				for _, m := range regexp.MustCompile(`env:(\w+)`).FindAllStringSubmatch(text, -1) {
					value := secrets[m[1]]
					if value == "" {
						value = "a secret of somebody else"
					}
					cmd.Env = append(cmd.Env, m[1]+"="+value)
				}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v: %s\n%s", err, out, text)
				}
			})
		}
	}
}
