package dicomweb_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pydicomJSON gives the files UIDs where they lack some, writes them to a folder and prints what pydicom makes of each, in the JSON model.
const pydicomJSON = `
import json, os, sys, warnings, pydicom
warnings.simplefilter("ignore")
out = {}
for n, path in enumerate(sys.argv[2:]):
    ds = pydicom.dcmread(path, force=True)
    for keyword, value in (("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),):
        if not ds.get(keyword):
            setattr(ds, keyword, value)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.3.%d" % n, "1.2.3.%d.1" % n, "1.2.3.%d.1.1" % n
    to = os.path.join(sys.argv[1], os.path.basename(path))
    ds.save_as(to)
    out[os.path.basename(path)] = pydicom.dcmread(to).to_json_dict()
json.dump(out, sys.stdout)
`

// TestCharacterSetsInJSON stores the character set files of the data pack and compares metadata and search results with what pydicom
// reads in them; and with what DCMTK's dcm2json writes, where that knows the character set.
func TestCharacterSetsInJSON(t *testing.T) {
	files := pack(t, "dicom/edge/charset/*.dcm")
	dir := t.TempDir()
	cmd := exec.Command("/usr/bin/python3", append([]string{"-c", pydicomJSON, dir}, files...)...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		if bytes.Contains(complaint.Bytes(), []byte("No module named")) || os.IsNotExist(err) {
			t.Skip("pydicom is not installed for /usr/bin/python3 (Debian package python3-pydicom)")
		}
		t.Fatalf("%v %s", err, complaint.String())
	}
	var theirs map[string]map[string]any
	if err := json.Unmarshal(out, &theirs); err != nil {
		t.Fatal(err)
	}
	s := start(t)
	compared, byDCMTK := 0, 0
	for _, name := range files {
		name = filepath.Base(name)
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if r := s.post("/studies", "application/dicom", bytes.NewReader(b)); r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
			continue
		}
		want := textOnly(theirs[name]).(map[string]any)
		uid := want["0020000D"].(map[string]any)["Value"].([]any)[0].(string)
		got := textOnly(decoded(t, s.get("/studies/"+uid+"/metadata").body)[0]).(map[string]any)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s, pydicom's JSON and ours differ:\n%s", name, hidden(diff))
		}
		found := decoded(t, s.get("/studies?includefield=all&StudyInstanceUID="+uid).body)[0].(map[string]any)
		if diff := cmp.Diff(want["00100010"], textOnly(found["00100010"])); diff != "" && want["00100010"] != nil {
			t.Errorf("%s, the name in a search: %s", name, hidden(diff))
		}
		compared++
		if dcmtk, err := exec.Command("dcm2json", filepath.Join(dir, name)).Output(); err == nil {
			var d map[string]any
			if json.Unmarshal(dcmtk, &d) == nil {
				if diff := cmp.Diff(textOnly(d["00100010"]), got["00100010"]); diff != "" {
					t.Errorf("%s, DCMTK's name and ours differ: %s", name, hidden(diff))
				}
				byDCMTK++
			}
		}
	}
	if compared != len(files) || byDCMTK < 10 {
		t.Errorf("%d of %d files were compared with pydicom, %d with DCMTK", compared, len(files), byDCMTK)
	}
	t.Logf("%d files compared with pydicom, %d with DCMTK", compared, byDCMTK)
}

func decoded(t *testing.T, b []byte) []any {
	t.Helper()
	var out []any
	if err := json.Unmarshal(b, &out); err != nil || len(out) == 0 {
		t.Fatalf("%v in %s", err, b)
	}
	return out
}

// textOnly leaves what the comparison is about: no binary values, no Specific Character Set, and one way to write an empty value.
func textOnly(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if private := len(k) == 8 && strings.ContainsAny(k[3:4], "13579BDF"); private { // pydicom guesses VRs, we keep the bytes
				continue
			}
			if k == "00080005" || k == "7FE00010" || k == "InlineBinary" || k == "BulkDataURI" || strings.HasPrefix(k, "0002") {
				continue
			}
			if list, ok := e.([]any); ok && k == "Value" && (len(list) == 0 || len(list) == 1 && (list[0] == nil || list[0] == "")) {
				continue
			}
			out[k] = textOnly(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = textOnly(v[i])
		}
		return out
	}
	if s, ok := v.(string); ok { // pydicom leaves the escape sequence of GB 2312 in
		return strings.ReplaceAll(s, "\x1b$)A", "")
	}
	return v
}

// hidden keeps values of the data pack out of the log but for their code points.
func hidden(diff string) string {
	return strings.Map(func(r rune) rune {
		if r > 0x7E {
			return '?'
		}
		return r
	}, diff)
}
