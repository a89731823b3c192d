package pipeline

import (
	"context"
	"fmt"
	"slices"
)

// Withdraw takes back the readings of a study that are about an image which is gone; has tells which SOP Instance UIDs the archive still has.
// Their documents stay where they are, and are not delivered from then on. When the same set of images comes again, its reading holds
// again.
func (l *Line) Withdraw(ctx context.Context, study string, has func(sop string) bool) error {
	records, err := l.Archive.Records(ctx, study)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Reading == nil || r.State == StateWithdrawn || !slices.ContainsFunc(r.Reading.Inputs, func(in InputRef) bool { return !has(in.SOPInstanceUID) }) {
			continue
		}
		if _, err := l.Archive.UpdateRecord(ctx, Life{StudyInstanceUID: study}, r.Key, func(r *Record) {
			r.State, r.Error = StateWithdrawn, "an image that it is about was deleted"
		}); err != nil {
			return fmt.Errorf("the reading of study %s about an image that was deleted cannot be withdrawn: %w", study, err)
		}
		var documents, at []string
		for _, d := range r.Documents {
			documents = append(documents, d.SOPInstanceUID)
		}
		for name, d := range r.Deliveries {
			if !d.Delivered.IsZero() {
				at = append(at, name)
			}
		}
		slices.Sort(at)
		l.Log.Warn().Str("study", study).Int("revision", r.Reading.Revision).Strs("documents", documents).Strs("delivered_to", at).
			Msg("a reading is withdrawn, because an image that it is about was deleted; its documents stay where they are until somebody deletes them")
	}
	return nil
}

// withdrawn lists the documents of readings that have been taken back.
func withdrawn(records []Record) (out []DocumentRef) {
	for _, r := range records {
		if r.State == StateWithdrawn {
			out = append(out, r.Documents...)
		}
	}
	return out
}
