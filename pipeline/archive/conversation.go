package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// conversationsDir is the folder, in that of a study's records, where conversations are: a file each, named by what was said so far. So the
// conversation that a request goes on with is found without reading others, and one that is asked again from the middle becomes another.
const conversationsDir = "conversations"

// Converse adds the messages that follow the first n of said to the conversation of an author about a study that consists of these n, or
// begins one with all of them. It returns the conversation as it is on disk then. It goes with the study's records. The error wraps
// pipeline.ErrNotFound when the archive has nothing of the study.
func (a *Archive) Converse(ctx context.Context, studyUID, author string, said []pipeline.Said, n int) (pipeline.Conversation, error) {
	k := pipeline.Conversation{StudyInstanceUID: studyUID, Author: author, Messages: slices.Clone(said)}
	if !pipeline.ValidUID(studyUID) || n < 0 || n >= len(said) || said[len(said)-1].Time == nil {
		return k, fmt.Errorf("%w: no conversation about a study", pipeline.ErrInvalid)
	}
	a.records.Lock() // no deletion meanwhile
	defer a.records.Unlock()
	if _, err := a.Entries(ctx, studyUID, "", ""); err != nil {
		return k, err
	}
	name := conversationName(author, said)
	earlier := recordFile(studyUID, conversationsDir, conversationName(author, said[:n]))
	if _, err := a.readConversation(ctx, recordFile(studyUID, conversationsDir, name)); !errors.Is(err, os.ErrNotExist) { // the same was said before
		name = fmt.Sprintf("%s-%d.json", strings.TrimSuffix(name, ".json"), said[len(said)-1].Time.UnixNano())
	}
	known, err := a.readConversation(ctx, earlier)
	switch {
	case err == nil:
		k = known
		k.Messages = append(k.Messages, said[n:]...)
	case errors.Is(err, os.ErrNotExist):
		k.Started, k.ID = *said[len(said)-1].Time, strings.TrimSuffix(name, ".json")
		if t := said[n].Time; t != nil {
			k.Started = *t
		}
	default:
		return k, fmt.Errorf("a conversation about study %s cannot be read: %w", studyUID, bare(err))
	}
	b, err := json.MarshalIndent(k, "", " ")
	if err == nil {
		err = a.files.write(ctx, recordFile(studyUID, conversationsDir, name), b)
	}
	if err != nil {
		return k, fmt.Errorf("a conversation about study %s cannot be kept: %w", studyUID, err)
	}
	if !known.Started.IsZero() { // after a crash there are both, and the longer one counts
		err = a.files.remove(ctx, earlier)
	}
	return k, err
}

// conversationName is the name of the file of what was said: by whom, in which order, about which images.
func conversationName(author string, said []pipeline.Said) string {
	h := sha256.New()
	line := func(s string) { fmt.Fprintf(h, "%d %s\n", len(s), s) }
	line(author)
	for _, m := range said {
		line(string(m.Role))
		line(m.Text)
		line(strings.Join(m.Images, " "))
	}
	return hex.EncodeToString(h.Sum(nil)[:16]) + ".json"
}

func (a *Archive) readConversation(ctx context.Context, name string) (k pipeline.Conversation, err error) {
	b, err := readAll(ctx, a.files, name)
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	return k, err
}

// Conversations returns the conversations about a study, the oldest first; none is no error.
func (a *Archive) Conversations(ctx context.Context, studyUID string) ([]pipeline.Conversation, error) {
	if !pipeline.ValidUID(studyUID) {
		return nil, fmt.Errorf("%w: the Study Instance UID is no UID", pipeline.ErrInvalid)
	}
	folder := recordFile(studyUID, conversationsDir)
	a.records.Lock()
	defer a.records.Unlock()
	names, err := namesBelow(ctx, a.files, folder)
	if err != nil {
		return nil, fmt.Errorf("the conversations about study %s cannot be listed: %w", studyUID, bare(err))
	}
	longest := map[string]pipeline.Conversation{}
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		k, err := a.readConversation(ctx, path.Join(folder, name))
		if err != nil {
			return nil, fmt.Errorf("a conversation about study %s cannot be read: %w", studyUID, bare(err))
		}
		if len(k.Messages) >= len(longest[k.ID].Messages) {
			longest[k.ID] = k
		}
	}
	var out []pipeline.Conversation
	for _, k := range longest {
		out = append(out, k)
	}
	slices.SortFunc(out, func(x, y pipeline.Conversation) int {
		if c := x.Started.Compare(y.Started); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return out, nil
}
