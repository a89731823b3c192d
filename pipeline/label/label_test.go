package label

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

var short = map[string]string{
	"normal": noFinding, "medi": cardiomediastinum, "heart": cardiomegaly, "lesion": lesion, "opacity": opacity, "edema": edema, "cons": consolidation,
	"pneumonia": pneumonia, "atel": atelectasis, "ptx": pneumothorax, "eff": effusion, "pleura": pleuralOther, "fx": fracture, "device": devices,
}

var signs = map[byte]pipeline.Presence{'+': pipeline.Present, '-': pipeline.Absent, '?': pipeline.Undetermined}

// expect reads "eff+ ptx- edema?".
func expect(t *testing.T, s string) map[string]pipeline.Presence {
	out := map[string]pipeline.Presence{}
	for _, w := range strings.Fields(s) {
		l, ok := short[w[:len(w)-1]]
		if !ok {
			t.Fatalf("%q is no label", w)
		}
		out[l] = signs[w[len(w)-1]]
	}
	return out
}

func TestSentence(t *testing.T) {
	for _, group := range []string{plain, negated, doubtful, contrasted, structural, course, deviceTalk, overall, odd} {
		for line := range strings.Lines(group) {
			text, want, ok := strings.Cut(strings.TrimSpace(line), " | ")
			if !ok {
				if strings.TrimSpace(line) != "" && !strings.HasSuffix(strings.TrimSpace(line), "|") {
					t.Fatalf("no expectation: %q", line)
				}
				text = strings.TrimSuffix(strings.TrimSpace(line), "|")
			}
			if text == "" {
				continue
			}
			if diff := cmp.Diff(expect(t, want), Sentence(text)); diff != "" {
				t.Errorf("%s (-want +got)\n%s", text, diff)
			}
		}
	}
}

const plain = `
There is a large right pleural effusion. | eff+
Moderate bilateral effusions are seen. | eff+
Small left pleural fluid collection layers posteriorly. | eff+
A loculated empyema occupies the right base. | eff+
There is a left hydropneumothorax. | ptx+ eff+
Hemothorax on the right. | eff+
Tiny right apical pneumothorax. | ptx+
Bilateral pneumothoraces persist. | ptx+
Left PTX measuring 2.5 cm at the apex. | ptx+
Pleural air is seen along the left lateral chest wall. | ptx+
The left lung has consolidation in its lower lobe. | cons+
Dense consolidative change fills the right middle lobe. | cons+
Patchy opacity in the left mid zone. | opacity+
There are hazy opacities at both bases. | opacity+
Bibasilar infiltrates. | opacity+
Right lower lobe air-space disease. | opacity+
Right lower lobe airspace process. | opacity+
Diffuse ground glass change is noted. | opacity+
Interstitial markings are increased throughout. | opacity+
Reticulonodular change at the bases. | opacity+
Coarse reticular pattern in the periphery. | opacity+
Linear scarring in the lingula. | opacity+
Biapical scarring. | opacity+
Complete opacification of the left hemithorax. | opacity+
Streaky density at the left base represents atelectasis. | opacity+ atel+
Plate-like atelectasis at the right base. | atel+
Bibasilar atelectatic changes. | atel+
Right upper lobe collapse. | atel+
Collapse of the left lower lobe is complete. | atel+
Collapsed right lung. | atel+
Findings are consistent with pneumonia. | pneumonia+
Right middle lobe bronchopneumonia. | pneumonia+
The appearance is compatible with an infectious process. | pneumonia+
Multifocal opacities in keeping with infection. | opacity+ pneumonia+
There is moderate pulmonary edema. | edema+
Interstitial edema with Kerley B lines. | edema+
Findings of congestive heart failure. | edema+
Changes of CHF. | edema+
Fluid overload. | edema+
Pulmonary vascular congestion. | edema?
The pulmonary vessels are congested. | edema?
There is cephalization of flow. | edema?
Cardiomegaly. | heart+
Moderate cardiomegaly is seen. | heart+
A 9 mm nodule projects over the right upper lobe. | lesion+
Multiple pulmonary nodules. | lesion+
There is a spiculated mass in the left hilum. | lesion+
A cavitary lesion lies in the right apex. | lesion+
Thick-walled cavity in the left upper lobe. | lesion+
A calcified nodule in the lingula. | lesion+
Masslike opacity in the right upper lobe. | lesion+ opacity+
Nodular opacity at the left base. | lesion+ opacity+
Known metastatic disease in both lungs. | lesion+
Left pleural thickening. | pleura+
Calcified pleural plaques along both diaphragms. | pleura+
Biapical pleural scarring. | pleura+
There is thickening of the minor fissure. | pleura+
Apical capping on the left. | pleura+
Pleural-parenchymal scarring at the apices. | pleura+
Healing fracture of the left seventh rib. | fx+
Old right clavicle fracture. | fx+
Displaced rib fractures are present. | fx+
Compression deformity of a mid thoracic vertebra. | fx?
Wedge deformity of T12. | fx?
The left costophrenic angle is blunted. | eff?
Blunting of the right costophrenic sulcus. | eff?
The mediastinum is widened. | medi+
Superior mediastinal widening. | medi+
Small right effusion and bibasilar atelectasis. | eff+ atel+
Right effusion, left lower lobe consolidation and cardiomegaly. | eff+ cons+ heart+
There is a pneumothorax on the left, and a chest tube is in place. | ptx+ device+
`

const negated = `
No pneumothorax. | ptx-
No pneumothorax or pleural effusion. | ptx- eff-
No pleural effusion, pneumothorax, or consolidation. | eff- ptx- cons-
There is no effusion, pneumothorax or focal consolidation seen. | eff- ptx- cons-
No effusion or pneumothorax is seen. | eff- ptx-
There is neither effusion nor pneumothorax. | eff- ptx-
No evidence of pneumonia. | pneumonia-
There is no convincing evidence for pulmonary edema. | edema-
Without focal consolidation. | cons-
The lungs are without infiltrate or nodule. | opacity- lesion-
Free of consolidation and effusion. | cons- eff-
The right lung is free from infiltrate. | opacity-
Negative for pneumothorax. | ptx-
Negative for effusion, fracture or mass. | eff- fx- lesion-
Absence of pleural fluid. | eff-
Pneumothorax is not seen. | ptx-
Pleural effusions are not identified. | eff-
An effusion is absent. | eff-
No large effusion. | eff-
No definite pneumothorax. | ptx-
No new consolidation. | cons-
No focal airspace opacity to suggest pneumonia. | opacity- pneumonia-
No findings suspicious for malignancy. | lesion-
No acute rib fracture. | fx-
No displaced fracture is identified. | fx-
There are no suspicious nodules or masses. | lesion-
No lobar collapse. | atel-
No vascular congestion or overt edema. | edema-
No pleural thickening. | pleura-
Heart failure is not present. | edema-
No sign of interstitial edema, and no effusion. | edema- eff-
Pneumonia is unlikely. | pneumonia-
No pneumothorax, small left effusion. | ptx- eff+
No pneumothorax and small left effusion. | ptx- eff+
No pneumothorax; small left effusion. | ptx- eff+
No consolidation. Small effusion on the left. | cons- eff+
There is no pneumothorax, and the effusion on the right persists. | ptx- eff+
No pneumothorax is seen and the left effusion has decreased. | ptx- eff+
No focal consolidation with small bilateral effusions. | cons- eff+
Effusion without pneumothorax. | eff+ ptx-
Cardiomegaly without edema. | heart+ edema-
Atelectasis at the left base, otherwise negative for airspace disease. | atel+ opacity-
Nothing to suggest infection. | pneumonia-
Lungs are clear of consolidation. | cons-
The lungs are well inflated, without consolidation, effusion or pneumothorax. | cons- eff- ptx-
There isn't a pneumothorax. | ptx-
Pneumothorax: none. | ptx-
No blunting of the costophrenic angles. | eff-
No support devices. | device-
The chest shows no mass lesion. | lesion-
No evidence of tuberculosis or pneumonia. | pneumonia-
`

const doubtful = `
Possible small left effusion. | eff?
Possible right lower lobe pneumonia. | pneumonia?
Opacity at the right base, possibly pneumonia. | opacity+ pneumonia?
Left basilar opacity may represent atelectasis. | opacity+ atel?
Left basilar opacity may represent atelectasis or pneumonia. | opacity+ atel? pneumonia?
Right basal opacity, likely atelectasis. | opacity+ atel?
Probable small right effusion. | eff?
Bibasilar opacities suggestive of edema. | opacity+ edema?
Opacity concerning for pneumonia. | opacity+ pneumonia?
A finding suspicious for malignancy. | lesion?
Pneumothorax cannot be excluded. | ptx?
A small pneumothorax can't be ruled out. | ptx?
Cannot exclude a small effusion. | eff?
We cannot entirely exclude underlying pneumonia. | pneumonia?
An early infiltrate is not excluded. | opacity?
Questionable nodule in the left apex. | lesion?
Question of a small pneumothorax. | ptx?
? pneumonia at the left base. | pneumonia?
Findings could reflect mild edema. | edema?
Atelectasis versus pneumonia. | atel? pneumonia?
Atelectasis vs. infiltrate in the lingula. | atel? opacity?
Basal atelectasis or pneumonia. | atel? pneumonia?
Atelectasis/infiltrate at the left base. | atel? opacity?
Atelectasis and/or pneumonia at the right base. | atel? pneumonia?
Pneumonia is a consideration. | pneumonia?
Correlate clinically for pneumonia. | pneumonia?
Small effusion versus thickening. | eff? pleura?
The opacity may be infection in the appropriate clinical setting. | opacity+ pneumonia?
Infection, in the appropriate clinical setting. | pneumonia?
A small effusion may be present. | eff?
Trace edema could also be present. | edema?
Left basal opacity, atelectasis likely. | opacity+ atel?
Pneumonia is in the differential. | pneumonia?
Infection is less likely. | pneumonia?
A subtle fracture is suspected. | fx?
Equivocal right apical pneumothorax. | ptx?
A fracture is difficult to entirely exclude. | fx?
Small effusion is possible. | eff?
Perhaps trace pleural fluid. | eff?
The nodule is not well seen today. | lesion?
The left effusion is not well evaluated. | eff?
Presumed infection in the right upper lobe. | pneumonia?
The differential includes edema and pneumonia. | edema? pneumonia?
Density at the base that might be pleural thickening. | pleura?
`

const contrasted = `
No pneumothorax, but there is a small effusion. | ptx- eff+
Small effusion but no pneumothorax. | eff+ ptx-
No consolidation; however, a nodule is seen in the left apex. | cons- lesion+
Although there is no edema, the heart is enlarged. | edema- heart+
Other than mild cardiomegaly, no acute abnormality. | heart+ normal+
The lungs are clear except for a calcified nodule. | normal+ opacity- cons- lesion+
No effusion while atelectasis persists at the left base. | eff- atel+
There is an effusion, although no pneumothorax is seen. | eff+ ptx-
Heart is enlarged, mediastinum and hila are normal. | heart+ medi-
Despite atelectasis there is no consolidation. | atel+ cons-
The heart is not enlarged but the mediastinum is widened. | heart- medi+
`

const structural = `
Heart size is normal. | heart-
The heart is normal in size. | heart-
Normal heart size. | heart-
Heart is not enlarged. | heart-
The cardiac silhouette is unremarkable. | heart-
The cardiac silhouette is within normal limits. | heart-
Heart size and pulmonary vascularity are within normal limits. | heart-
Heart: normal. | heart-
Heart size normal, lungs clear. | heart- normal+ opacity- cons-
The heart is enlarged. | heart+
The heart is mildly enlarged. | heart+
Enlarged cardiac silhouette. | heart+
Stable enlargement of the cardiac silhouette. | heart+
There is stable enlargement of the heart. | heart+
The cardiac silhouette appears prominent. | heart+
The heart may be enlarged. | heart?
Borderline heart size. | heart?
Borderline enlargement of the heart. | heart?
Heart size at the upper limit of what is normal. | heart?
Heart size is top normal. | heart?
No cardiac enlargement. | heart-
The heart is not significantly enlarged. | heart-
Heart size is stable. |
Heart is unchanged. |
Normal cardiomediastinal silhouette. | heart- medi-
The cardiomediastinal silhouette is within normal limits. | heart- medi-
Cardio-mediastinal contours are unremarkable. | heart- medi-
The cardiomediastinal silhouette is enlarged. | medi+
Stable cardiomediastinal silhouette. |
The heart and mediastinum are normal. | heart- medi-
Heart, mediastinum and hila are unremarkable. | heart- medi-
Cardiac and mediastinal contours are normal. | heart- medi-
Mediastinal contours are unremarkable. | medi-
The mediastinum is not widened. | medi-
Widened mediastinum. | medi+
The heart is enlarged and the mediastinum is unremarkable. | heart+ medi-
The lungs are clear. | normal+ opacity- cons-
Both lungs are clear and well expanded. | normal+ opacity- cons-
Clear lungs. | normal+ opacity- cons-
The lungs are grossly clear. | normal+ opacity- cons-
Lungs appear clear bilaterally. | normal+ opacity- cons-
Lung fields are clear. | normal+ opacity- cons-
The left lung is clear. |
Clear right lung. |
The lungs are not clear. |
The costophrenic angles are sharp. | eff-
Sharp costophrenic angles. | eff-
The right costophrenic angle is sharp. |
Costophrenic sulci are clear. | eff-
The pleural spaces are clear. | eff- ptx-
Osseous structures are intact. | fx-
The visualized bones appear intact. | fx-
No acute osseous abnormality. | fx-
No acute bony abnormality is seen. | fx-
The trachea is midline. |
Hilar contours are normal. |
`

const course = `
Stable right effusion. | eff+
The right effusion is unchanged. | eff+
No change in the right effusion. | eff+
No significant interval change in the left effusion. | eff+
Effusion has not significantly changed. | eff+
Without change in bibasilar atelectasis. | atel+
Improved edema. | edema+
The effusion has decreased. | eff+
The pneumothorax has resolved. | ptx-
Resolved left effusion. | eff-
Resolution of the right pneumothorax. | ptx-
Interval resolution of pulmonary edema. | edema-
The pneumothorax has nearly resolved. | ptx+
Nearly resolved pneumothorax. | ptx+
Partial resolution of the effusion. | eff+
Pneumonia has not resolved. | pneumonia+
The effusion is no longer seen. | eff-
The infiltrate has cleared. | opacity-
New consolidation in the right upper lobe. | cons+
Worsening edema. | edema+
Follow-up is advised to document resolution of the opacity. | opacity+
History of pneumonia. |
Persistent atelectasis, no pneumothorax. | atel+ ptx-
`

const deviceTalk = `
A right internal jugular catheter ends in the superior vena cava. | device+
Left PICC with its tip at the cavoatrial junction. | device+
The endotracheal tube ends 4 cm above the carina. | device+
ETT in good position. | device+
Dual-lead pacemaker in the left chest wall. | device+
ICD leads are intact. | device+
Nasogastric tube passes below the diaphragm. | device+
Right chest tube in place, no pneumothorax. | device+ ptx-
Prosthetic aortic valve. | device+
Posterior spinal fusion hardware. | device+
Left chest port. | device+
Swan-Ganz catheter in the right pulmonary artery. | device+
The endotracheal tube has been removed. | device-
Interval removal of the right chest tube. | device-
Lines and tubes are unchanged. | device+
Sternotomy wires are intact. |
Surgical clips in the right axilla. |
No pacemaker. | device-
The lead is fractured near the clavicle. |
Fractured pacer lead. | device+
Right subclavian line with no pneumothorax. | device+ ptx-
Bilateral breast implants. |
`

const overall = `
No acute cardiopulmonary abnormality. | normal+
No acute cardiopulmonary process is identified. | normal+
There is no acute disease. | normal+
No active disease. | normal+
Normal chest. | normal+
Normal chest radiograph. | normal+
Unremarkable examination. | normal+
The chest is normal. | normal+
No acute findings. | normal+
Negative for acute cardiopulmonary disease. | normal+
No evidence of acute intrathoracic abnormality. | normal+
Cardiomegaly without acute cardiopulmonary abnormality. | heart+ normal+
`

const odd = `
|
. |
No |
Recommend clinical correlation. |
The study is limited by rotation. |
Pericardial effusion. |
Left knee effusion. |
Soft tissue edema of the neck. |
Mass effect on the trachea. |
Nipple shadows overlie the bases. |
A lytic lesion in the left humerus. |
Mediastinal mass. |
Calcified granuloma in the left upper lobe. |
Prior granulomatous infection. |
HEART SIZE IS NORMAL. LUNGS CLEAR. NO EFFUSION. | heart- normal+ opacity- cons- eff-
1. Right effusion. | eff+
"Small" (left) effusion. | eff+
Emphysema with hyperinflation. |
Effusion measuring 3.5 cm in depth, no pneumothorax. | eff+ ptx-
`

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name      string
		sentences []string
		want      string
		because   map[string][]int
	}{
		{"nothing", nil, "", nil},
		{"normal", []string{"The heart is normal in size.", "The lungs are clear.", "No acute disease."}, "heart- opacity- cons- normal+", map[string][]int{"normal": {1, 2}, "heart": {0}}},
		{"normal words beside a finding", []string{"Small left effusion.", "No acute disease."}, "eff+ normal-", map[string][]int{"normal": {0}}},
		{"normal words beside a doubt", []string{"No acute disease.", "Possible small left effusion."}, "eff? normal?", map[string][]int{"normal": {1}}},
		{"a device alone", []string{"Left PICC.", "Lungs are clear."}, "device+ opacity- cons- normal+", nil},
		{"beyond the list", []string{"Emphysema.", "No acute disease."}, "normal-", map[string][]int{"normal": {0}}},
		{"no word of normal", []string{"No effusion.", "Heart size is stable."}, "eff-", nil},
		{"present over absent", []string{"No pleural effusion.", "Small left effusion.", "There is an effusion."}, "eff+ normal-", map[string][]int{"eff": {1, 2}}},
		{"undetermined over absent", []string{"No pneumothorax.", "Possible pneumothorax."}, "ptx? normal?", map[string][]int{"ptx": {1}}},
		{"all that deny", []string{"No effusion.", "Sharp costophrenic angles."}, "eff-", map[string][]int{"eff": {0, 1}}},
	} {
		got := map[string]pipeline.Presence{}
		at := map[string][]int{}
		for i, f := range Report(c.sentences) {
			if f.Label != pipeline.Labels[i] {
				t.Fatalf("%s: finding %d is %s", c.name, i, f.Label)
			}
			if f.Presence == pipeline.NotSaid {
				if f.Sentences != nil {
					t.Errorf("%s: %s not said, yet by sentences %v", c.name, f.Label, f.Sentences)
				}
				continue
			}
			got[f.Label], at[f.Label] = f.Presence, f.Sentences
		}
		if diff := cmp.Diff(expect(t, c.want), got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, diff)
		}
		for l, want := range c.because {
			if !slices.Equal(at[short[l]], want) {
				t.Errorf("%s: %s by sentences %v, want %v", c.name, l, at[short[l]], want)
			}
		}
	}
}

// TestNegationFlips: a plain statement and its denial never read alike.
func TestNegationFlips(t *testing.T) {
	for _, what := range []string{"pleural effusion", "pneumothorax", "consolidation", "pulmonary edema", "rib fracture", "lung nodule", "atelectasis", "pneumonia", "airspace opacity", "cardiomegaly", "pleural thickening", "central line"} {
		yes, no, maybe := Sentence("There is a "+what+"."), Sentence("There is no "+what+"."), Sentence("Possible "+what+".")
		if len(yes) != 1 || len(no) != 1 || len(maybe) != 1 {
			t.Errorf("%s: %v, %v, %v", what, yes, no, maybe)
		}
		for l := range yes {
			if yes[l] != pipeline.Present || no[l] != pipeline.Absent || maybe[l] != pipeline.Undetermined {
				t.Errorf("%s: %v, %v, %v", what, yes, no, maybe)
			}
		}
	}
}

func FuzzSentence(f *testing.F) {
	f.Add("No pneumothorax, small left effusion; the heart (mildly) enlarged? 1. \xff")
	f.Fuzz(func(t *testing.T, s string) {
		for l, p := range Sentence(s) {
			if !slices.Contains(pipeline.Labels, l) || p == pipeline.NotSaid || p == "" {
				t.Errorf("%q: %q", l, p)
			}
		}
	})
}

func TestKnows(t *testing.T) {
	for tag, want := range map[string]bool{"en": true, "en-GB": true, "EN-us": true, "de": false, "": false, "eng": false, "enm": false, "zh-Hans": false} {
		if got := Knows(tag); got != want {
			t.Errorf("%q: %v", tag, got)
		}
	}
}
