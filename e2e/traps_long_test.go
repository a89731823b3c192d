package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// wholeRequest stores 30 instances of 8.4 MB in one request and watches the memory of the process.
func wholeRequest(f *field) {
	const instances, limit = 30, 64 << 20
	resident := func() int {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", f.s.cmd.Process.Pid))
		if err != nil {
			f.t.Fatal(err)
		}
		pages, _ := strconv.Atoi(strings.Fields(string(b))[1])
		return pages * os.Getpagesize()
	}
	pipe, in := io.Pipe()
	go func() {
		for i := range instances {
			b := bytes.ReplaceAll(f.objects["large"], []byte(f.prefix+".3.1.1"), fmt.Appendf(nil, "%s.3.1.%d", f.prefix, i%9+1))
			b = bytes.ReplaceAll(b, []byte(f.prefix+".3.1."), fmt.Appendf(nil, "%s.3.%d.", f.prefix, i/9+1))
			b = bytes.ReplaceAll(b, []byte(f.prefix+".3.1"), fmt.Appendf(nil, "%s.3.%d", f.prefix, i/9+1))
			_, _ = fmt.Fprintf(in, "--bnd\r\nContent-Type: application/dicom\r\n\r\n")
			if _, err := in.Write(b); err != nil {
				return
			}
			_, _ = io.WriteString(in, "\r\n")
		}
		_, _ = io.WriteString(in, "--bnd--\r\n")
		in.Close()
	}()
	idle, peak := resident(), 0
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			peak = max(peak, resident())
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	status, kept, _, _ := f.store(asDICOM, pipe)
	close(done)
	<-watched
	if status != http.StatusOK || kept != instances {
		f.t.Errorf("status %d, %d told as kept", status, kept)
	}
	f.t.Logf("%d MB above idle for a request of %d MB", (peak-idle)>>20, instances*len(f.objects["large"])>>20)
	if peak-idle > limit {
		f.t.Errorf("%d MB above idle", (peak-idle)>>20)
	}
}

// expectContinue sends the body only after a 100.
func expectContinue(f *field) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.s.root, "http://"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	body := f.one("a1")
	begin := time.Now()
	fmt.Fprintf(conn, "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", asDICOM, len(body))
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if took := time.Since(begin); err != nil || !strings.Contains(line, "100 Continue") || took > 500*time.Millisecond {
		f.t.Fatalf("after %v: %q %v", took, line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		f.t.Fatal(err)
	}
	if _, err := conn.Write(body); err != nil {
		f.t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		f.t.Errorf("%v %v", resp, err)
	}
}

// oddUIDs: padded UIDs are those without padding; what is no UID is refused and touches no file.
func oddUIDs(f *field) {
	for _, path := range []string{"/studies/..%2f..%2f..%2fetc/metadata", "/studies/%2e%2e/series", "/studies/" + strings.Repeat("1.2", 30), "/studies/1.2%00", "/studies/a.b"} {
		if resp, b := f.get(path); resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusNotFound {
			f.t.Errorf("%s: %s %.100s", path, resp.Status, b)
		}
	}
	sop := f.prefix + ".1.1.1"
	for _, odd := range []string{"../../../../etc/" + strings.Repeat("x", len(sop)-16), "1.2" + strings.Repeat("/", len(sop)-3)} {
		b := bytes.ReplaceAll(f.objects["a1"], []byte(sop), []byte(odd))
		if status, kept, failed, _ := f.store(asDICOM, bytes.NewReader(framed("bnd", b))); status != http.StatusConflict || kept != 0 || failed != 1 {
			f.t.Errorf("%q: status %d, %d told as kept, %d as failed", odd, status, kept, failed)
		}
	}
	for _, tag := range [][2]uint16{{0x0008, 0x0018}, {0x0020, 0x000E}} { // of the first, the File Meta Information tells another value
		long := bytes.ReplaceAll(f.objects["a1"], []byte(sop), []byte(sop[:len(sop)-1]+"9"))
		at := element(f.t, long, tag[0], tag[1], "UI")
		n := int(long[at-2])
		digits := len(bytes.TrimRight(long[at:at+n], "\x00"))
		long = slices.Replace(long, at+digits, at+n, []byte(strings.Repeat("1", 80-digits))...)
		long[at-2] = 80
		if status, kept, _, _ := f.store(asDICOM, bytes.NewReader(framed("bnd", long))); status != http.StatusConflict || kept != 0 {
			f.t.Errorf("a UID of 80 characters: status %d, %d told as kept", status, kept)
		}
	}
	for uid, pad := range map[string]string{".1.12": " ", ".1.13": "\x00"} {
		b := bytes.ReplaceAll(f.objects["a2"], []byte(f.prefix+".1.1.2"), []byte(f.prefix+uid+pad))
		if status, kept, _, _ := f.store(asDICOM, bytes.NewReader(framed("bnd", b))); status != http.StatusOK || kept != 1 {
			f.t.Errorf("padded with %q: status %d, %d told as kept", pad, status, kept)
		}
		path := "/studies/" + f.prefix + ".1/series/" + f.prefix + ".1.1/instances/" + f.prefix + uid
		if resp, got := f.get(path, "Accept", "application/dicom"); resp.StatusCode != http.StatusOK || !bytes.Equal(got, b) {
			f.t.Errorf("padded with %q: %s", pad, resp.Status)
		}
	}
}

var syntaxOfPart = regexp.MustCompile(`^application/dicom; ?transfer-syntax="?([0-9.]+)"?$`)

// labelled compares each part's label with the Transfer Syntax UID in its own File Meta Information.
func labelled(f *field) {
	f.stored(2, asDICOM, framed("bnd", f.objects["a1"], f.objects["rle"]))
	for _, study := range []string{".1", ".2"} {
		for _, accept := range []string{`multipart/related; type="application/dicom"`, `multipart/related; type="application/dicom"; transfer-syntax=*`} {
			resp, body := f.get("/studies/"+f.prefix+study, "Accept", accept)
			_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
			if err != nil {
				f.t.Fatal(resp.Status, err)
			}
			parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
			for n := 0; ; n++ {
				part, err := parts.NextPart()
				if errors.Is(err, io.EOF) && n > 0 {
					break
				}
				if err != nil {
					f.t.Fatal(err)
				}
				b, err := io.ReadAll(part)
				if err != nil {
					f.t.Fatal(err)
				}
				at := element(f.t, b, 0x0002, 0x0010, "UI")
				has := strings.TrimRight(string(b[at:at+int(b[at-2])]), "\x00")
				if m := syntaxOfPart.FindStringSubmatch(part.Header.Get("Content-Type")); m == nil || m[1] != has {
					f.t.Errorf("%s: a part of syntax %s has the type %s", accept, has, part.Header.Get("Content-Type"))
				}
			}
		}
	}
}

// pages walks through six instances, two at a time, while more are stored.
func pages(f *field) {
	f.stored(4, asDICOM, framed("bnd", f.objects["a1"], f.objects["a2"], f.objects["frames"], f.objects["rle"]))
	page := func(offset int) (uids []string) {
		var found []map[string]struct{ Value []any }
		getJSON(f.t, fmt.Sprintf("%s/instances?limit=2&offset=%d&StudyDate=20250102&StudyInstanceUID=%s.1,%s.2,%s.3", f.s.dicomweb(), offset, f.prefix, f.prefix, f.prefix), &found)
		for _, i := range found {
			uids = append(uids, fmt.Sprint(i["00080018"].Value[0]))
		}
		return uids
	}
	first, second := page(0), page(2)
	f.stored(1, asDICOM, f.one("large"))
	again := slices.Concat(page(0), page(2))
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(first, second))))
	if len(first) != 2 || len(second) != 2 || len(all) != 4 || len(page(4)) != 1 || len(page(5)) != 0 {
		f.t.Errorf("pages %v and %v", first, second)
	}
	if !slices.Equal(again, slices.Concat(first, second)) {
		f.t.Errorf("after another instance came the pages are %v, before %v %v", again, first, second)
	}
}

// addresses: the URLs in answers are those that the client can reach.
func addresses(f *field) {
	f.stored(1, asDICOM, f.one("a1"))
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(f.s.root, "http://"))
	for _, tc := range []struct {
		headers []string
		want    string
	}{
		{nil, f.s.root + "/dicom-web"},
		{[]string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "pacs.example", "X-Forwarded-Prefix", "/xray"}, "https://pacs.example/xray/dicom-web"},
		{[]string{"Forwarded", `for=10.0.0.1;proto=https;host="pacs.example:8443", for=10.0.0.2`}, "https://pacs.example:8443/dicom-web"},
		{[]string{"Host", "127.0.0.1"}, "http://127.0.0.1:" + port + "/dicom-web"}, // dicomweb-client of PyPI
		{[]string{"Host", "pacs.example"}, "http://pacs.example/dicom-web"},
	} {
		for path, key := range map[string]string{f.instance("a1") + "/metadata": "BulkDataURI", "/studies?StudyInstanceUID=" + f.prefix + ".1": "00081190"} {
			_, b := f.get(path, tc.headers...)
			if !bytes.Contains(b, []byte(key)) || !bytes.Contains(b, []byte(`"`+tc.want+"/studies/"+f.prefix)) {
				f.t.Errorf("%v: %s is not under %s: %s", tc.headers, key, tc.want, b)
			}
		}
	}
}

// required checks the return keys of PS3.18 tables 10.6.3-3 to 10.6.3-5 whose values the objects have.
func required(f *field) {
	f.stored(4, asDICOM, framed("bnd", f.objects["a1"], f.objects["a2"], f.objects["frames"], f.objects["rle"]))
	one := func(path string) (found []map[string]struct{ Value []any }) {
		getJSON(f.t, f.s.dicomweb()+path, &found)
		return found
	}
	study := "StudyInstanceUID=" + f.prefix + ".1"
	for path, keys := range map[string]string{
		"/studies?" + study:                         "00080020 00080030 00080050 00080056 00080061 00080090 00081190 00100010 00100020 00100030 00100040 0020000D 00200010 00201206 00201208",
		"/series?" + study + "&Modality=CR":         "00080060 00081190 0020000E 00200011 00201209 0020000D",
		"/instances?" + study + "&InstanceNumber=2": "00080016 00080018 00080056 00081190 00200013 00280010 00280011 00280100 0020000D 0020000E",
	} {
		found := one(path)
		if len(found) != 1 {
			f.t.Errorf("%s: %d results", path, len(found))
			continue
		}
		for _, key := range strings.Fields(keys) {
			if _, ok := found[0][key]; !ok {
				f.t.Errorf("%s: no %s", path, key)
			}
		}
	}
	modalities := fmt.Sprint(one("/studies?" + study)[0]["00080061"].Value)
	if modalities != "[CR OT]" && modalities != "[OT CR]" {
		f.t.Errorf("ModalitiesInStudy %s", modalities)
	}
	for _, separator := range []string{",", "%5C"} {
		if n := len(one("/studies?StudyInstanceUID=" + f.prefix + ".1" + separator + f.prefix + ".2" + separator + "1.2.3")); n != 2 {
			f.t.Errorf("a list with %s: %d studies", separator, n)
		}
	}
	for modality, want := range map[string]int{"OT": 1, "CR": 2, "MR": 0} {
		if n := len(one("/studies?ModalitiesInStudy=" + modality + "&StudyInstanceUID=" + f.prefix + ".1," + f.prefix + ".2")); n != want {
			f.t.Errorf("ModalitiesInStudy=%s: %d studies, want %d", modality, n, want)
		}
	}
}

// ownResults stores what a reading has made once more, with the image, as a PACS does that forwards every new object. A study that comes
// afterwards is read when the one that came back would have been.
func ownResults(f *field) {
	reported := func(seed string) (study string) {
		file, study := phantom(f.t, "--seed", seed)
		chatxray(f.t, 0, "send", f.s.dicomweb(), file)
		eventually(f.t, 2*time.Minute, "both reports", func() error {
			var found []any
			getJSON(f.t, f.s.dicomweb()+"/studies/"+study+"/instances", &found)
			if len(found) != 3 {
				return fmt.Errorf("%d instances in the study", len(found))
			}
			return nil
		})
		return study
	}
	study := reported("22")
	read, err := strconv.Atoi(f.s.metric("chatxray_studies_read_total"))
	if err != nil || read == 0 {
		f.t.Fatal(read, err)
	}
	resp, body := f.get("/studies/"+study, "Accept", `multipart/related; type="application/dicom"; transfer-syntax=*`)
	status, kept, failed, _ := f.store(resp.Header.Get("Content-Type"), bytes.NewReader(body))
	if status != http.StatusOK || kept != 3 || failed != 0 {
		f.t.Errorf("status %d, %d told as kept, %d as failed", status, kept, failed)
	}
	reported("23")
	again := 0
	eventually(f.t, time.Minute, "the count of studies read", func() error {
		if again, err = strconv.Atoi(f.s.metric("chatxray_studies_read_total")); again == read {
			return errors.New("the study that came afterwards is not counted")
		}
		return err
	})
	if again != read+1 {
		f.t.Errorf("%d studies read, then %d, want one more", read, again)
	}
	var found []any
	if getJSON(f.t, f.s.dicomweb()+"/studies/"+study+"/instances", &found); len(found) != 3 {
		f.t.Errorf("%d instances in the study", len(found))
	}
}
