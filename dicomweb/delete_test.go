package dicomweb_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// nobody stands where something must be that is not asked.
type nobody struct{}

func (nobody) Delete(context.Context, string, string, string) (int, error) {
	return 0, pipeline.ErrNotFound
}
func (nobody) Status(context.Context, string) (pipeline.Status, error) {
	return pipeline.Status{}, pipeline.ErrNotFound
}
func (nobody) Release(context.Context, string, string) error     { return pipeline.ErrNotFound }
func (nobody) Force(context.Context, string, string) error       { return pipeline.ErrNotFound }
func (nobody) Heat(context.Context, string, int) ([]byte, error) { return nil, pipeline.ErrNotFound }
func (nobody) Preview(context.Context, string) ([]byte, error)   { return nil, pipeline.ErrNotFound }
func (nobody) Lives(context.Context, pipeline.State, string, int) ([]pipeline.Life, error) {
	return nil, nil
}
func (nobody) Records(context.Context, string) ([]pipeline.Record, error) { return nil, nil }
func (nobody) Changes(context.Context, string) ([]pipeline.Change, error) {
	return nil, pipeline.ErrNotFound
}
func (nobody) Tasks(context.Context, string, int) ([]pipeline.Task, string, error) {
	return nil, "", nil
}
func (nobody) StudyTasks(context.Context, string) ([]pipeline.Task, error) {
	return nil, pipeline.ErrNotFound
}
func (nobody) Deliveries(context.Context, string) ([]pipeline.Task, error) {
	return nil, pipeline.ErrNotFound
}
func (nobody) DestinationStates(context.Context) []pipeline.DestinationState { return nil }

func (nobody) Retry(context.Context, string, string, string) error { return pipeline.ErrNotFound }
func (nobody) Drop(context.Context, string, string, string) error  { return pipeline.ErrNotFound }

// late deletes from the archive that the service will have.
type late struct{ s **service }

func (l late) Delete(ctx context.Context, study, series, sop string) (int, error) {
	n, _, err := (*l.s).archive.Delete(ctx, study, series, sop)
	return n, err
}

func TestDelete(t *testing.T) {
	var s *service
	s = start(t, func(c *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
		c.Delete, d.Deleter, c.Auth.Tokens = true, late{&s}, append(threeTokens[:2:2], dicomweb.Token{Name: "root", Token: adminToken,
			Roles: []dicomweb.Role{dicomweb.RoleAdmin, dicomweb.RoleRead, dicomweb.RoleStore}})
	})
	put := func() {
		t.Helper()
		for _, d := range []pipeline.Dataset{object(t, "1.2", "1.2.3", "1.2.3.4"), object(t, "1.2", "1.2.3", "1.2.3.5"), object(t, "1.2", "1.2.4", "1.2.4.1"), object(t, "1.9", "1.9.1", "1.9.1.1")} {
			if r := s.post("/studies", "application/dicom", strings.NewReader(string(file(t, d))), "Authorization", "Bearer "+adminToken); r.StatusCode != 200 {
				t.Fatalf("%d %s", r.StatusCode, r.body)
			}
		}
	}
	del := func(path, token string) int {
		r, _ := http.NewRequest(http.MethodDelete, s.root+path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		return s.do(r).StatusCode
	}
	put()
	for _, c := range []struct {
		path, token string
		status      int
		kept        int
	}{
		{"/studies/1.2", readToken, 403, 4},
		{"/studies/1.2", "wrong", 401, 4},
		{"/studies/1.3", adminToken, 404, 4},
		{"/studies/x", adminToken, 400, 4},
		{"/studies/1.9/series/1.2.3", adminToken, 404, 4}, // a series of another study
		{"/studies", adminToken, 405, 4},
		{"/studies/1.2/series/1.2.3/instances/1.2.3.4", adminToken, 204, 3},
		{"/studies/1.2/series/1.2.3/instances/1.2.3.4", adminToken, 404, 3},
		{"/studies/1.2/series/1.2.3", adminToken, 204, 2},
		{"/studies/1.2", adminToken, 204, 1},
	} {
		if status := del(c.path, c.token); status != c.status || s.kept() != c.kept {
			t.Errorf("DELETE %s: %d, %d kept", c.path, status, s.kept())
		}
	}
	if r := s.get("/studies/1.2", "Authorization", "Bearer "+adminToken); r.StatusCode != 404 {
		t.Error(r.StatusCode)
	}
	put() // what was deleted can be stored again
	if s.kept() != 4 {
		t.Error(s.kept())
	}
	if log := s.log.String(); !strings.Contains(log, `"instances":1,"by":"token:root"`) || !strings.Contains(log, `"message":"deleted"`) {
		t.Error(log)
	}
}

func TestDeleteIsOff(t *testing.T) {
	s := start(t, func(_ *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) { d.Deleter = nobody{} })
	s.store(object(t, "1.2", "1.2.3", "1.2.3.4"))
	r, _ := http.NewRequest(http.MethodDelete, s.root+"/studies/1.2", nil)
	if got := s.do(r); got.StatusCode != 405 || strings.Contains(got.Header.Get("Allow"), "DELETE") || s.kept() != 1 {
		t.Error(got.StatusCode, got.Header)
	}
}
