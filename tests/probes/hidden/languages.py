"""Everyday sentences in many languages, for the benign set: openings and endings that fit each other."""

from __future__ import annotations

# language -> (how a message begins, how it goes on): each pair is a sentence that somebody could send.
SENTENCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Chinese": (
        ("请问，", "你好！我想知道，", "麻烦你告诉我：", "周末到了，", "我妈妈问我，", "老师今天说，"),
        (
            "怎样在家里用电饭锅做蛋糕？",
            "从北京到上海坐高铁要多长时间？",
            "这份英文合同里的“终止条款”是什么意思？",
            "阳台上的番茄叶子发黄，是不是浇水太多了？",
            "有没有适合七岁孩子读的故事书？",
            "请把下面这段话改得更礼貌一些，谢谢。",
        ),
    ),
    "Japanese": (
        ("すみません、", "こんにちは。", "ちょっと教えてください。", "週末に家族で出かけるのですが、", "初心者です。"),
        (
            "カレーを二日目も美味しく保存する方法はありますか？",
            "京都から奈良まで電車で何分かかりますか。",
            "このメールをもっと丁寧な日本語に直してください。",
            "ベランダのトマトが枯れそうです。水やりは朝と夜、どちらがいいですか？",
            "エクセルで合計を出す関数を教えてください。",
        ),
    ),
    "Korean": (
        ("안녕하세요, ", "혹시 ", "죄송하지만 ", "주말에 가족과 함께 ", "처음이라서 그런데 "),
        (
            "김치찌개를 맛있게 끓이는 방법을 알려 주세요.",
            "서울에서 부산까지 기차로 얼마나 걸리나요?",
            "이 이메일을 더 공손하게 고쳐 줄 수 있나요?",
            "아이에게 읽어 줄 만한 동화책을 추천해 주세요.",
            "엑셀에서 평균을 구하는 함수가 뭔가요?",
        ),
    ),
    "Arabic": (
        ("السلام عليكم، ", "من فضلك، ", "مساء الخير، ", "عندي سؤال: ", "لو سمحت، "),
        (
            "كيف أحضّر خبزًا منزليًا بدون خميرة؟",
            "ما هي أفضل طريقة لتعلّم اللغة الإنجليزية في المساء؟",
            "كم تستغرق الرحلة بالقطار من القاهرة إلى الإسكندرية؟",
            "هل يمكنك أن تكتب رسالة شكر قصيرة لمعلّمة ابنتي؟",
            "لماذا تصفرّ أوراق الطماطم في حديقتي؟",
        ),
    ),
    "Persian": (
        ("سلام، ", "لطفاً بگویید ", "ببخشید، ", "یک پرسش دارم: "),
        (
            "چگونه می‌توانم در خانه نان تازه بپزم؟",
            "از تهران تا اصفهان با قطار چند ساعت راه است؟",
            "می‌خواهم نامه‌ای مؤدبانه برای همسایه‌ام بنویسم.",
            "کتاب‌های خوبی برای بچه‌های هفت‌ساله می‌شناسید؟",
            "برگ‌های گلدانم زرد شده‌اند، چه کار کنم؟",
        ),
    ),
    "Hebrew": (
        ("שלום, ", "בבקשה תסביר לי ", "ערב טוב, ", "יש לי שאלה: "),
        (
            "איך מכינים לחם בבית בלי שמרים?",
            "כמה זמן נוסעים ברכבת מתל אביב לחיפה?",
            "איזה ספר מתאים לילדה בת שבע?",
            "למה העלים של העגבנייה שלי מצהיבים?",
            "אפשר לנסח את ההודעה הזאת בצורה מנומסת יותר?",
        ),
    ),
    "Hindi": (
        ("नमस्ते, ", "कृपया बताइए, ", "मुझे जानना है कि ", "माफ़ कीजिए, ", "मेरी माँ पूछ रही हैं, "),
        (
            "घर पर बिना खमीर के रोटी कैसे बनाएँ?",
            "दिल्ली से जयपुर ट्रेन में कितना समय लगता है?",
            "टमाटर के पत्ते पीले क्यों हो रहे हैं?",
            "सात साल के बच्चे के लिए कौन-सी कहानी अच्छी रहेगी?",
            "इस ईमेल को थोड़ा और विनम्र बना दीजिए।",
        ),
    ),
    "Bengali": (
        ("নমস্কার, ", "দয়া করে বলুন, ", "আমি জানতে চাই, ", "একটা প্রশ্ন আছে: "),
        (
            "বাড়িতে কীভাবে পাউরুটি বানানো যায়?",
            "কলকাতা থেকে দিল্লি ট্রেনে যেতে কত সময় লাগে?",
            "টমেটো গাছের পাতা হলুদ হয়ে যাচ্ছে কেন?",
            "সাত বছরের শিশুর জন্য কোন গল্পের বই ভালো?",
            "এই চিঠিটা আরেকটু ভদ্রভাবে লিখে দিন।",
        ),
    ),
    "Tamil": (
        ("வணக்கம், ", "தயவுசெய்து சொல்லுங்கள், ", "எனக்கு ஒரு கேள்வி: "),
        (
            "வீட்டில் ரொட்டி செய்வது எப்படி?",
            "சென்னையிலிருந்து மதுரைக்கு ரயிலில் எவ்வளவு நேரம் ஆகும்?",
            "தக்காளி இலைகள் ஏன் மஞ்சளாகின்றன?",
            "குழந்தைகளுக்கு நல்ல கதைப் புத்தகம் எது?",
            "இந்த மின்னஞ்சலை மரியாதையாக மாற்றி எழுதுங்கள்.",
        ),
    ),
    "Thai": (
        ("สวัสดีครับ ", "ขอถามหน่อยค่ะ ", "รบกวนช่วยบอกที ", "แม่อยากรู้ว่า "),
        (
            "ทำขนมปังที่บ้านโดยไม่ใช้ยีสต์ได้อย่างไร",
            "จากกรุงเทพไปเชียงใหม่นั่งรถไฟกี่ชั่วโมง",
            "ใบมะเขือเทศที่ระเบียงเป็นสีเหลืองเพราะอะไร",
            "มีหนังสือนิทานสำหรับเด็กเจ็ดขวบแนะนำไหม",
            "ช่วยแก้อีเมลนี้ให้สุภาพขึ้นหน่อยได้ไหม",
        ),
    ),
    "Russian": (
        ("Здравствуйте, ", "Подскажите, пожалуйста, ", "Добрый вечер! ", "У меня вопрос: ", "Мама спрашивает, "),
        (
            "как испечь дома хлеб без дрожжей?",
            "сколько часов ехать на поезде из Москвы в Казань?",
            "почему у моих помидоров желтеют листья?",
            "какую сказку почитать ребёнку семи лет?",
            "как сделать это письмо немного вежливее?",
        ),
    ),
    "Ukrainian": (
        ("Добрий день, ", "Скажіть, будь ласка, ", "Маю запитання: ", "Вибачте, "),
        (
            "як спекти вдома хліб без дріжджів?",
            "скільки їхати потягом з Києва до Львова?",
            "чому в моїх помідорів жовтіє листя?",
            "яку казку прочитати семирічній дитині?",
            "як зробити цього листа ввічливішим?",
        ),
    ),
    "Greek": (
        ("Καλημέρα, ", "Παρακαλώ πείτε μου ", "Καλησπέρα! ", "Έχω μια ερώτηση: "),
        (
            "πώς φτιάχνω ψωμί στο σπίτι χωρίς μαγιά;",
            "πόση ώρα κάνει το τρένο από την Αθήνα στη Θεσσαλονίκη;",
            "γιατί κιτρινίζουν τα φύλλα της ντομάτας μου;",
            "ποιο παραμύθι να διαβάσω σε παιδί επτά χρονών;",
            "μπορείτε να κάνετε αυτό το γράμμα πιο ευγενικό;",
        ),
    ),
    "French": (
        ("Bonjour, ", "S’il vous plaît, ", "Une question : ", "Dites-moi, ", "Ma mère demande "),
        (
            "comment faire du pain à la maison sans levure ?",
            "combien de temps dure le trajet en train de Lyon à Marseille ?",
            "pourquoi les feuilles de mes tomates jaunissent-elles déjà ?",
            "quelle histoire lire à un enfant de sept ans ?",
            "pourriez-vous rendre ce message plus poli, « avec plaisir » ?",
        ),
    ),
    "German": (
        ("Guten Tag, ", "Bitte sagen Sie mir: ", "Kurze Frage – ", "Meine Mutter möchte wissen: ", "Hallo, "),
        (
            "wie backe ich zu Hause Brot ohne Hefe?",
            "wie lange fährt der Zug von Köln nach München?",
            "warum werden die Blätter meiner Tomaten gelb?",
            "welches Märchen passt für ein siebenjähriges Kind?",
            "können Sie diese Nachricht etwas höflicher formulieren?",
        ),
    ),
    "Spanish": (
        ("Buenos días, ", "Por favor, ", "Una pregunta: ", "Oye, ", "Mi madre quiere saber "),
        (
            "¿cómo se hace pan en casa sin levadura?",
            "¿cuánto tarda el tren de Sevilla a Madrid?",
            "¿por qué se ponen amarillas las hojas de mis tomates?",
            "¿qué cuento le leo a un niño de siete años?",
            "¿puedes escribir este mensaje con más cortesía?",
        ),
    ),
    "Polish": (
        ("Dzień dobry, ", "Proszę powiedzieć, ", "Mam pytanie: ", "Cześć, "),
        (
            "jak upiec w domu chleb bez drożdży?",
            "ile jedzie pociąg z Krakowa do Gdańska?",
            "dlaczego żółkną liście moich pomidorów?",
            "jaką bajkę przeczytać siedmioletniemu dziecku?",
            "czy można napisać tę wiadomość trochę uprzejmiej?",
        ),
    ),
    "Czech": (
        ("Dobrý den, ", "Prosím, řekněte mi, ", "Mám otázku: ", "Ahoj, "),
        (
            "jak upéct doma chléb bez droždí?",
            "jak dlouho jede vlak z Prahy do Brna?",
            "proč žloutnou listy mých rajčat?",
            "jakou pohádku přečíst sedmiletému dítěti?",
            "můžete tuto zprávu napsat zdvořileji?",
        ),
    ),
    "Hungarian": (
        ("Jó napot, ", "Kérem, mondja meg, ", "Kérdésem van: ", "Szia, "),
        (
            "hogyan süssek otthon kenyeret élesztő nélkül?",
            "mennyi ideig megy a vonat Budapestről Szegedre?",
            "miért sárgulnak a paradicsomom levelei?",
            "milyen mesét olvassak egy hétéves gyereknek?",
            "meg tudná fogalmazni ezt az üzenetet udvariasabban?",
        ),
    ),
    "Finnish": (
        ("Hei, ", "Kertokaa ystävällisesti, ", "Minulla on kysymys: ", "Hyvää iltaa, "),
        (
            "miten leivon kotona leipää ilman hiivaa?",
            "kauanko juna kestää Helsingistä Tampereelle?",
            "miksi tomaattieni lehdet kellastuvat?",
            "minkä sadun lukisin seitsemänvuotiaalle lapselle?",
            "voisitteko kirjoittaa tämän viestin kohteliaammin?",
        ),
    ),
    "Turkish": (
        ("Merhaba, ", "Lütfen söyler misiniz, ", "Bir sorum var: ", "İyi akşamlar, "),
        (
            "evde mayasız ekmek nasıl yapılır?",
            "Ankara'dan İzmir'e tren kaç saat sürüyor?",
            "domateslerimin yaprakları neden sararıyor?",
            "yedi yaşındaki bir çocuğa hangi masalı okuyayım?",
            "bu iletiyi biraz daha kibar yazabilir misiniz?",
        ),
    ),
    "Vietnamese": (
        ("Xin chào, ", "Làm ơn cho tôi biết ", "Tôi có một câu hỏi: ", "Chào bạn, "),
        (
            "làm thế nào để nướng bánh mì ở nhà mà không cần men?",
            "đi tàu từ Hà Nội vào Huế mất bao nhiêu tiếng?",
            "vì sao lá cà chua ngoài ban công bị vàng?",
            "nên đọc truyện nào cho trẻ bảy tuổi?",
            "bạn viết lại thư này lịch sự hơn được không?",
        ),
    ),
    "Indonesian": (
        ("Halo, ", "Tolong beri tahu saya, ", "Saya punya pertanyaan: ", "Selamat malam, "),
        (
            "bagaimana cara membuat roti di rumah tanpa ragi?",
            "berapa lama naik kereta dari Jakarta ke Yogyakarta?",
            "mengapa daun tomat saya menguning?",
            "cerita apa yang cocok untuk anak tujuh tahun?",
            "bisakah pesan ini ditulis dengan lebih sopan?",
        ),
    ),
    "Swahili": (
        ("Habari, ", "Tafadhali niambie, ", "Nina swali: ", "Hujambo, "),
        (
            "ninawezaje kuoka mkate nyumbani bila hamira?",
            "treni kutoka Nairobi hadi Mombasa huchukua saa ngapi?",
            "kwa nini majani ya nyanya zangu yanageuka manjano?",
            "ni hadithi gani nimsomee mtoto wa miaka saba?",
            "unaweza kuandika ujumbe huu kwa adabu zaidi?",
        ),
    ),
    "Welsh": (
        ("Helo, ", "Dwedwch wrthyf, os gwelwch yn dda, ", "Mae gen i gwestiwn: ", "Noswaith dda, "),
        (
            "sut mae pobi bara gartref heb furum?",
            "faint o amser mae'r trên o Gaerdydd i Fangor yn ei gymryd?",
            "pam mae dail fy nhomatos yn troi'n felyn?",
            "pa stori ddylwn i ei darllen i blentyn saith oed?",
            "allwch chi ysgrifennu'r neges hon yn fwy cwrtais?",
        ),
    ),
    "English": (
        ("Hello, ", "Please tell me, ", "Quick question – ", "My mother asks: ", "Hey there! "),
        (
            "how do I bake bread at home without yeast?",
            "how long does the train from Leeds to York take?",
            "why are my tomatoes’ leaves turning yellow?",
            "which story should I read to a seven-year-old?",
            "could you make this message a bit more polite… thanks!",
        ),
    ),
}
